"""The catalog knows every kernel."""

import ast
from pathlib import Path

import numpy as np
import pytest

from edgeq import kernels, ops
from edgeq.errors import UnsupportedError
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


def test_every_family_is_in_it():
    assert set(catalog.variants(TABLE[0])) == families()


@pytest.mark.parametrize("isa", TABLE, ids=lambda isa: isa.name)
def test_names_are_unique_and_follow_the_body(isa):
    names = catalog.names(isa)
    assert len(set(names)) == len(names)
    assert f"attention:{isa.tile}-f16" in names and f"attention:{isa.tile + 1}-f16" not in names
    assert "norm" in names and "matmul:Q4_K" in names


def test_cpus():
    assert [(cpu.name, cpu.isa.name) for cpu in catalog.CPUS] == [
        ("x86-64-v3", "avx2"),
        ("x86-64-v3-vnni", "avxvnni"),
        ("x86-64-v4", "avx512"),
        ("x86-64-v4-vnni", "avx512vnni"),
        ("cortex-a72", "neon"),
        ("cortex-a76", "neon_dotprod"),
        ("neoverse-n2", "neon_i8mm"),
    ]
    assert catalog.cpu("cortex-a76").triple == "aarch64-unknown-linux-gnu"
    with pytest.raises(UnsupportedError, match="kernels cannot be built for 'i486': choose among x86-64-v3, "):
        catalog.cpu("i486")


def test_this_cpu(monkeypatch: pytest.MonkeyPatch):
    def pretend(machine: str, features: set[str]) -> None:
        monkeypatch.setattr(catalog.platform, "machine", lambda: machine)
        monkeypatch.setattr(catalog.isa_table, "host_features", lambda: dict.fromkeys(features, True))

    pretend("x86_64", catalog._V4 | {"avx512vnni", "gfni"})
    assert catalog.this_cpu().name == "x86-64-v4-vnni"
    pretend("x86_64", set(catalog._V4) - {"avx512cd"})
    assert catalog.this_cpu().name == "x86-64-v3"
    pretend("aarch64", {"neon", "dotprod", "lse", "fullfp16"})
    assert catalog.this_cpu().name == "cortex-a76"
    pretend("x86_64", {"sse2"})
    with pytest.raises(UnsupportedError, match="name one with --cpu"):
        catalog.this_cpu()


def test_every_activation_has_a_kernel_and_a_twin():
    from edgeq.ops import activation

    assert set(activation._functions()) == set(activation.FUNCTIONS)
    for kind in activation.FUNCTIONS:
        assert activation.reference(np.ones((1, 1), np.float32), kind).shape == (1, 1)
