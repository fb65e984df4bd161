"""The catalog knows every kernel."""

import ast
from pathlib import Path

import pytest

from edgeq import kernels
from edgeq.kernels import catalog
from edgeq.simd.isa import TABLE

FOLDER = Path(kernels.__file__).parent


def families() -> set[str]:
    """Modules that make kernels: those with a function `make(variant, isa)`."""
    functions = (
        (path.stem, node)
        for path in FOLDER.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "make"
    )
    return {family for family, node in functions if [argument.arg for argument in node.args.args] == ["variant", "isa"]}


def test_every_family_is_in_it():
    assert set(catalog.variants(TABLE[0])) == families()


@pytest.mark.parametrize("isa", TABLE, ids=lambda isa: isa.name)
def test_names_are_unique_and_follow_the_body(isa):
    names = catalog.names(isa)
    assert len(set(names)) == len(names)
    assert f"attention:{isa.tile}-f16" in names and f"attention:{isa.tile + 1}-f16" not in names
    assert "norm" in names and "matmul:Q4_K" in names


def test_variants_that_have_a_table():
    from edgeq.kernels import activation, elementwise

    assert tuple(activation._FUNCTIONS) == catalog.ACTIVATIONS
    assert list(elementwise._FUNCTIONS) == catalog.variants(TABLE[0])["elementwise"]
