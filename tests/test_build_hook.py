"""tools/build_hook.py: a wheel that brings its kernels needs no compiler where it is installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgeq.toolchain import cpus, image

pytest.importorskip("hatchling", reason="hatchling, which makes wheels, is not installed")

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".*", "__pycache__", "bench", "build", "dist", "formats", "golden", "tests", "tiny_model")
FIND = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
from edgeq.toolchain import library, prebuilt
print(prebuilt.best().path)
library.kernel("probe:read")
"""


def tree(folder: Path, common: list[str]) -> Path:
    """A source tree in which these are the kernels of common models."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    with (folder / "edgeq" / "ops" / "catalog.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef common(isa):\n    return {common!r}\n")
    return folder


def make(folder: Path, which: str, *targets: str) -> subprocess.CompletedProcess[str]:
    """What `pip wheel` does in an environment that is made already."""
    environment = {**os.environ, "EDGEQ_BUILD_KERNELS": which, "EDGEQ_CACHE": str(folder.parent / "cache")}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder.parent / "dist"), *targets]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def kernels(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        return [name for name in content.namelist() if name.endswith(".eqk")]


def test_a_wheel_brings_its_kernels(tmp_path: Path):
    """It is made of a source distribution, as an index has it."""
    if not image.supported():
        pytest.skip("this system cannot run kernel files")
    done = make(tree(tmp_path / "tree", ["probe:read"]), "", "-t", "sdist")
    assert done.returncode == 0, done.stderr
    (source,) = (tmp_path / "dist").iterdir()
    with tarfile.open(source) as content:
        content.extraction_filter = getattr(tarfile, "data_filter", None)  # not in every Python 3.11
        content.extractall(tmp_path)
    cpu = cpus.this_cpu()
    done = make(tmp_path / source.name.removesuffix(".tar.gz"), "", "-t", "wheel")
    assert done.returncode == 0 and f"compiling 1 kernels for {cpu.name}" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packaged = f"edgeq/kernels/prebuilt/{cpu.name}.eqk"
    assert kernels(wheel) == [packaged]
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "EDGEQ_KERNELS": "", "XDG_DATA_HOME": "/nowhere"}
    found = subprocess.run([sys.executable, "-c", FIND], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == (f"{tmp_path / 'site' / packaged}\n", "")


def test_what_cannot_be_compiled_fails_no_installation(tmp_path: Path):
    done = make(tree(tmp_path / "tree", ["execute:nonsense"]), "native", "-t", "wheel")
    assert done.returncode == 0
    if image.supported():
        said = "no kernels were compiled, they will be when a model first runs: kernel execute:nonsense cannot be"
        assert said in done.stdout + done.stderr
    assert [kernels(wheel) for wheel in (tmp_path / "dist").iterdir()] == [[]]


def test_what_was_asked_for_is_there_or_no_wheel(tmp_path: Path):
    done = make(tree(tmp_path / "tree", []), "pdp-11", "-t", "wheel")
    assert done.returncode == 1 and not list((tmp_path / "dist").glob("*.whl"))
    assert "EDGEQ_BUILD_KERNELS=pdp-11: kernels cannot be built for 'pdp-11': choose among" in done.stdout + done.stderr
    done = make(tmp_path / "tree", "none", "-t", "wheel")
    assert done.returncode == 0 and [kernels(wheel) for wheel in (tmp_path / "dist").glob("*.whl")] == [[]]


@pytest.mark.parametrize(("which", "needs"), [("", ["numba", "psutil"]), ("none", [])])
def test_building_needs_a_compiler_only_where_it_compiles(which: str, needs: list[str]):
    code = "from hatchling.build import get_requires_for_build_wheel as needs; print(*needs())"
    variables = {**os.environ, "EDGEQ_BUILD_KERNELS": which}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert [Requirement(need).name for need in sorted(done.stdout.split())] == needs, done.stderr
