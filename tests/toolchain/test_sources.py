"""A kernel is known by what it is made of: its family's sources and its body's, and by nothing else."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.errors import KernelError
from edgeq.simd.isa import TABLE, Isa
from edgeq.toolchain import sources

ISA = {isa.name: isa for isa in TABLE}
PACKAGE = sources._PACKAGE


def forget() -> None:
    for one in (sources._files, sources._source, sources.made_of, sources._digest_of):
        one.cache_clear()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which the digests are of."""
    folder = tmp_path / "edgeq"
    for name in (*sources._FOLDERS, "toolchain"):
        if (PACKAGE / name).is_dir():
            shutil.copytree(PACKAGE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.eqk"))
    monkeypatch.setattr(sources, "_PACKAGE", folder)
    forget()
    yield folder
    forget()


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    forget()


def imported(module: str) -> set[str]:
    """The modules that one imports, of those that kernels can come from, as a parser sees it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources._files()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & sources._files().keys()


def families() -> set[str]:
    return {
        module.rpartition(".")[2]
        for module, path in sources._files().items()
        if re.search(r"^def make\(variant", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_imports_are_those_that_a_parser_sees():
    for module in sources._files():
        assert sources._source(module)[1] == imported(module), module


def test_every_kernel_has_sources_and_so_has_every_body():
    assert {"norm", "matmul", "encode", "execute"} <= families()
    for isa in TABLE:
        for family in families():
            made_of = sources.made_of(family, isa)
            assert {sources.module_of(family), isa.module, "edgeq.simd.target", "edgeq.toolchain.compile"} <= made_of
    with pytest.raises(KernelError, match="no family of kernels nothing"):
        sources.made_of("nothing", TABLE[0])


@pytest.mark.parametrize(
    "edited", ["kernels/encode.py", "blocks/search_mins.py", "simd/avx512.py", "toolchain/cache.py"]
)
def test_a_comment_elsewhere_changes_nothing(copy: Path, edited: str):
    before = sources.digest("norm:add", ISA["avx2"])
    edit(copy / edited)
    assert sources.digest("norm:add", ISA["avx2"]) == before


@pytest.mark.parametrize(
    "edited",
    ["norm", "simd/vector.py", "simd/emit.py", "simd/avx2.py", "simd/target.py", "toolchain/link.py"],
)
def test_a_change_in_what_is_imported_is_another_kernel(copy: Path, edited: str):
    """Also by what is imported, and by what compiles it."""
    before = sources.digest("norm:add", ISA["avx2"]), sources.sources(["norm", "copy_rows"], ISA["avx2"])
    edit(sources._files()[sources.module_of("norm")] if edited == "norm" else copy / edited)
    after = sources.digest("norm:add", ISA["avx2"]), sources.sources(["norm", "copy_rows"], ISA["avx2"])
    assert before[0] != after[0] and before[1] != after[1]


def test_imports_within_functions_count(copy: Path):
    """Those of a NumPy twin may be such."""
    path = sources._files()[sources.module_of("norm")]
    path.write_text(path.read_text(encoding="utf-8") + "\n\ndef f():\n    from edgeq.kernels import encode\n")
    forget()
    assert "edgeq.kernels.encode" in sources.made_of("norm", ISA["avx2"])


def test_families_are_looked_for_in_several_packages(copy: Path):
    (copy / "ops").mkdir(exist_ok=True)
    (copy / "ops" / "a_new_one.py").write_text("from edgeq.simd import vector\n")
    forget()
    assert sources.module_of("a_new_one") == "edgeq.ops.a_new_one"
    assert "edgeq.simd.target" in sources.made_of("a_new_one", ISA["portable"])


@pytest.mark.parametrize(("family", "variant", "isa"), [("matmul", "Q4_K", ISA["avx2"]), ("rope", "f16", TABLE[-1])])
def test_what_is_loaded_to_make_a_kernel_are_its_sources(family: str, variant: str, isa: Isa):
    """Beside what its package loads: the table of operations loads all of them."""
    code = f"""
import sys
from importlib import import_module
from edgeq.simd.isa import TABLE
isa = next(one for one in TABLE if one.name == {isa.name!r})
import_module({sources.module_of(family).rpartition(".")[0]!r})
before = set(sys.modules)
import_module({sources.module_of(family)!r}).make({variant!r}, isa)
import edgeq.toolchain.compile
print("\\n".join(name for name in set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) & sources._files().keys()
    assert "edgeq.simd.vector" in loaded and loaded <= sources.made_of(family, isa)


def test_the_cpu_and_the_compilers_count(monkeypatch: pytest.MonkeyPatch):
    here = sources.digest("norm", TABLE[-1])
    other = sources.digest("norm", TABLE[-1], ("aarch64-unknown-linux-gnu", "cortex-a72", "+neon"))
    monkeypatch.setattr(sources, "compiler_version", lambda package: "0.0")
    sources._compiled_by.cache_clear()
    older = sources.digest("norm", TABLE[-1])
    sources._compiled_by.cache_clear()
    assert len({here, other, older}) == 3
