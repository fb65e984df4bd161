"""What is said where torch is not installed."""

import subprocess
import sys


def test_without_torch_one_line_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport edgeq\nfrom edgeq.errors import UnsupportedError\n"
    code += "try:\n    import edgeq.qat\nexcept UnsupportedError as error:\n    print(error)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "edgeq.qat needs torch, which is not installed: pip install edgeq[qat]\n"
