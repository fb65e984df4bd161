"""tools/make_wheel.py: a wheel that brings its kernels needs no compiler where it is installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeq.kernels import build, catalog, image
from edgeq.kernels.sources import sources

ROOT = Path(__file__).resolve().parent.parent
FIND = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
from edgeq.kernels import library, prebuilt
print(prebuilt.best().path)
library.kernel("probe:read")
"""


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "make_wheel.py"), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def whole(path: Path, cpu: catalog.Cpu) -> Path:
    """A library of one kernel, made to stand for a library of all."""
    header, code = image.read(path)
    kernels = dict.fromkeys(catalog.names(cpu.isa), header.kernels["probe:read"])
    path.write_bytes(image.render(header.architecture, cpu.name, header.needs, header.isa, sources(), kernels, code))
    return path


def test_a_wheel_brings_its_kernels(tmp_path: Path):
    if not image.supported():
        pytest.skip("this system cannot run kernel files")
    cpu = catalog.this_cpu()
    library = whole(build.build(cpu, tmp_path / "kernels", ["probe:read"]), cpu)
    done = make("--cpu", cpu.name, "--kernels", tmp_path / "kernels", "-o", tmp_path / "dist")
    if "no wheel was made: No matching distribution found" in done.stderr:
        pytest.skip(f"pip finds nothing to build a wheel with, as without a network: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    (wheel,) = (tmp_path / "dist").iterdir()
    assert done.stdout.startswith(f"{wheel}: ") and done.stdout.endswith(f"kernels for {cpu.name}\n")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    packaged = tmp_path / "site" / "edgeq" / "kernels" / "prebuilt" / library.name
    assert packaged.read_bytes() == library.read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "EDGEQ_KERNELS": "", "XDG_DATA_HOME": "/nowhere"}
    found = subprocess.run([sys.executable, "-c", FIND], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == (f"{packaged}\n", "")


def test_an_unknown_cpu_is_refused_in_a_line(tmp_path: Path):
    done = make("--cpu", "pdp-11", "-o", tmp_path / "dist")
    assert done.returncode == 2 and done.stderr.startswith("make_wheel: kernels cannot be built for 'pdp-11'")
    assert not (tmp_path / "dist").exists()


def test_only_a_sound_and_whole_library_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_wheel

    cpu, built = catalog.cpu("cortex-a76"), []
    monkeypatch.setattr(make_wheel, "build", lambda cpu, folder: built.append(cpu.name))
    names, path = catalog.names(cpu.isa), tmp_path / "cortex-a76.eqk"
    content = image.render("aarch64", cpu.name, (), cpu.isa.name, sources(), dict.fromkeys(names, 0), b"code")
    path.write_bytes(content)
    assert make_wheel.library(cpu, tmp_path) == path and built == []
    path.write_bytes(content[:-1] + b"?")
    make_wheel.library(cpu, tmp_path)
    path.write_bytes(image.render("aarch64", cpu.name, (), cpu.isa.name, sources(), {names[0]: 0}, b"code"))
    make_wheel.library(cpu, tmp_path)
    assert built == [cpu.name] * 2
