"""Kernels read and write no byte past the ends of their buffers: tests of them, on memory that ends at unmapped pages.

All of them: `PYTHONPATH=tests pytest -p guard_memory tests/kernels`.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_calls import BODIES

from edgeq import environment

TESTS = Path(__file__).resolve().parents[1]
BODY = next(body for body in BODIES if body.native)  # the best of this machine
RAGGED = "(37, 288)"
MATRICES = [f"test_matmul.py::test_quantized_matches_twin[{RAGGED}-{name}-{BODY}]" for name in ("Q4_K", "Q8_0", "I8_R")]
SOME = [
    *MATRICES,
    f"test_matmul.py::test_float_matches_twin[(5, 7)-F16-{BODY}]",
    "test_elementwise.py::test_embedding_is_the_decoded_row[Q4_K]",
    "test_attention.py::test_attention_matches_twin[37-500-8-1-48-10-f16]",
]
OVERRUN = """
import ctypes, guard_memory
def test_overrun():
    found = guard_memory.guarded(128)
    ctypes.string_at(found.ctypes.data, 128)
    ctypes.string_at(found.ctypes.data, 129)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="mprotect is of POSIX")


def guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "guard_memory", "-p", "no:cacheprovider", *arguments]
    own = environment.of_child(PYTHONPATH=path)
    return subprocess.run(command, capture_output=True, text=True, env=own, cwd=TESTS.parent)


def test_kernels_keep_within_their_buffers():
    found = guarded(*[str(TESTS / "kernels" / name) for name in SOME])
    assert found.returncode == 0, f"{found.stdout}{found.stderr}"[-3000:]
    buffers = re.search(r"(\d+) buffers that end at an unmapped page", found.stdout)
    assert buffers is not None and int(buffers[1]) > 50


def test_a_byte_too_many_would_be_noticed(tmp_path):
    (tmp_path / "test_overrun.py").write_text(OVERRUN)
    assert guarded(str(tmp_path / "test_overrun.py"), f"--rootdir={tmp_path}").returncode == -signal.SIGSEGV
