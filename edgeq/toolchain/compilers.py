"""Which Numba is installed, and whether edgeq compiles with it. Imports neither Numba nor llvmlite."""

import importlib.util
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

# From the first version on, below the second, as pyproject.toml has it. Older ones emit code that LLVM refuses here;
# what simd/target.py needs of newer ones has not been checked (tests/simd/test_numba_contract.py does).
NUMBA = (0, 62), (0, 69)
REMEDY = "pip install 'numba>={}.{},<{}.{}'".format(*NUMBA[0], *NUMBA[1])


def no_compiler() -> str:
    """Why kernels cannot be compiled here, or nothing where they can be: Numba is missing, or none that edgeq knows."""
    installed = compiler_version("numba")
    if installed is None:
        return "Numba is not installed"
    number = re.match(r"(\d+)\.(\d+)", installed)
    if number and not NUMBA[0] <= (int(number[1]), int(number[2])) < NUMBA[1]:
        (major, first), (_, end) = NUMBA
        return f"Numba {installed} is installed, edgeq compiles with {major}.{first} to {major}.{end - 1}"
    return ""


def compiler_version(package: str) -> str | None:
    """The version of `numba` or `llvmlite`; None where it is not installed.

    Read off the name of the folder that an installer leaves beside a package, as `importlib.metadata` takes longer to
    import than finding all kernels does.
    """
    spec = _spec(package)
    if spec is None or spec.origin is None:
        return None
    beside = [path.stem for path in Path(spec.origin).parent.parent.glob(f"{package}-*.dist-info")]
    if len(beside) == 1:
        return beside[0].removeprefix(f"{package}-")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _spec(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # someone has put a stand-in into sys.modules
        return None
