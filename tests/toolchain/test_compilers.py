"""Which Numba edgeq compiles with, and what is said where there is another one."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from edgeq.errors import KernelError
from edgeq.toolchain import build, compilers, cpus, library

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def installed(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(compilers, "compiler_version", lambda package: version)


def test_the_project_asks_for_what_it_compiles_with():
    needs = {need.name: need.specifier for need in map(Requirement, PROJECT["project"]["dependencies"])}
    low, below = (f"{major}.{minor}" for major, minor in compilers.NUMBA)
    assert str(needs["numba"]) == f"<{below},>={low}"
    assert f"'numba>={low},<{below}'" in compilers.REMEDY


def test_the_installed_one_compiles():
    assert compilers.no_compiler() == ""
    numba = compilers.compiler_version("numba")
    assert numba is not None and Version(numba).major == 0


@pytest.mark.parametrize("version", ["0.62.0", "0.65.1", "0.68.1", "0.68.0rc1", "0.68.2.dev0+g1", "unknown"])
def test_versions_that_compile(monkeypatch: pytest.MonkeyPatch, version: str):
    installed(monkeypatch, version)
    assert compilers.no_compiler() == ""


@pytest.mark.parametrize("version", ["0.61.2", "0.69.0", "0.69.0dev0+22.g1", "1.0.0"])
def test_versions_that_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str):
    """One line: what was found, what is supported, what to do."""
    installed(monkeypatch, version)
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path))
    reason = f"Numba {version} is installed, edgeq compiles with 0.62 to 0.68"
    with pytest.raises(KernelError) as error:
        library.kernel("norm:none")
    assert f", and {reason}: pip install 'numba>=0.62,<0.69', or put a library" in str(error.value)
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    with pytest.raises(KernelError, match=f"cannot be built: {re.escape(reason)}"):
        build.build(cpus.CPUS[0], tmp_path, ["copy_rows"])
