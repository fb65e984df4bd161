"""The core of edgeq without what only Linux has: the same files, bit for bit, and the same texts. See elsewhere.py."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.system import environment

PLAYED = Path(__file__).with_name("elsewhere.py")
GREEDY = ("-n", "12", "--temperature", "0")


def run(there: bool, folder: Path, *arguments: object, stdin: str = "") -> str:
    """What `edgeq` prints, here or elsewhere. Kernels for elsewhere are kept, as those for here are."""
    cache = environment.cache_folder() / "elsewhere" if there else environment.cache_folder()
    variables = {"EDGEQ_CACHE": str(cache), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(PLAYED)] if there else [sys.executable, "-m", "edgeq"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        input=stdin,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(platform.system() != "Linux", reason="plays another system on Linux")
def test_convert_run_export_import_and_chat(tiny_model: Path, tmp_path: Path):
    said: list[list[str]] = []
    made: list[dict[str, bytes]] = []
    for there in (False, True):
        folder = tmp_path / ("there" if there else "here")
        folder.mkdir()
        (folder / "template").write_text("{{ messages[-1].content }}")
        run(there, folder, "convert", tiny_model, "-o", "a.eqf", "--type", "Q8_0")
        run(there, folder, "export", "a.eqf", "-o", "a.gguf")
        run(there, folder, "import", "a.gguf", "-o", "b.eqf")
        chat = ("chat", "b.eqf", "--template", "template", *GREEDY)
        said.append(
            [
                run(there, folder, "run", "a.eqf", "Once upon a time", *GREEDY),
                run(there, folder, *chat, stdin="Once upon a time\n/save chat.json\nOne day\n"),
                run(there, folder, "verify", "b.eqf").split()[-1],
            ]
        )
        made.append({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    assert said[0] == said[1] and len(said[0][0].split()) > 3 and said[0][1].count("\n") == 2
    assert made[0] == made[1] and set(made[0]) == {"a.eqf", "a.gguf", "b.eqf", "chat.json", "template"}
    for stray in ("Library", ".cache"):  # kernels are where EDGEQ_CACHE says
        assert not (tmp_path / "there" / stray).exists()


@pytest.mark.skipif(platform.system() != "Linux", reason="plays another system on Linux")
def test_another_system_is_played_at_all(tmp_path: Path):
    """What the test above would show nothing without."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from elsewhere import leave
leave("darwin")
from edgeq.system import environment
from edgeq.toolchain import image, prebuilt
from edgeq.runtime import hardware
from edgeq.toolchain import image, prebuilt
from edgeq.simd import cpuinfo
assert not hasattr(os, "preadv") and not hasattr(os, "sched_getaffinity")
assert not image.supported() and prebuilt.best() is None
assert cpuinfo.x86_features() is None and hardware.cpu_name() and hardware.cores().threads >= 1
assert hardware.memory().available > 1 << 20
os.environ.pop("EDGEQ_CACHE", None); os.environ.pop("XDG_CACHE_HOME", None)
assert environment.cache_folder().parts[-3:] == ("Library", "Caches", "edgeq")
"""
    subprocess.run(
        [sys.executable, "-c", code, str(PLAYED.parent)], check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
