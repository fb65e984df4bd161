"""The catalog knows every kernel."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from edgeq import kernels, ops
from edgeq.ops import catalog
from edgeq.simd.isa import TABLE


def families() -> set[str]:
    """Modules that make kernels: those with a function `make(variant, isa)`."""
    functions = (
        (path.stem, node)
        for folder in (kernels, ops)
        for path in Path(folder.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "make"
    )
    return {family for family, node in functions if [argument.arg for argument in node.args.args] == ["variant", "isa"]}


def test_arguments_are_loaded_by_their_names():
    """No kernel reads a word of its argument block from a literal offset."""
    for folder in (kernels, ops):
        for path in Path(folder.__file__).parent.glob("*.py"):
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"\bload_\w+\(args\b|\bargs \+", source), path


def test_every_family_is_in_it():
    assert set(catalog.variants(TABLE[0])) == families()


@pytest.mark.parametrize("isa", TABLE, ids=lambda isa: isa.name)
def test_names_are_unique_and_follow_the_body(isa):
    names = catalog.names(isa)
    assert len(set(names)) == len(names)
    assert f"attention:{isa.tile}-f16" in names and f"attention:{isa.tile + 1}-f16" not in names
    assert "norm" in names and "matmul:Q4_K" in names


def test_every_activation_has_a_kernel_and_a_twin():
    from edgeq.ops import activation

    assert set(activation.functions()) == set(activation.FUNCTIONS)
    for kind in activation.FUNCTIONS:
        assert activation.reference(np.ones((1, 1), np.float32), kind).shape == (1, 1)
