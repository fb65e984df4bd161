"""Instructions by their LLVM names: each is what LLVM calls so, with the types that its version declares."""

import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from edgeq.simd import intrinsics
from edgeq.simd.intrinsics import Intrinsic
from edgeq.simd.machine import machine
from edgeq.simd.target import target_machine

ARM = "cortex-a76"
CASES = [
    *(("haswell", "vpmaddubsw", intrinsics.PMADDUBSW[size]) for size in (16, 32)),
    ("icelake-server", "vpmaddubsw", intrinsics.PMADDUBSW[64]),
    ("haswell", "vpmaddwd", intrinsics.PMADDWD[32]),
    ("icelake-server", "vpmaddwd", intrinsics.PMADDWD[64]),
    ("alderlake", "vpdpbusd", intrinsics.VPDPBUSD[32]),
    ("icelake-server", "vpdpbusd", intrinsics.VPDPBUSD[64]),
    ("haswell", "vpshufb", intrinsics.PSHUFB[32]),
    ("icelake-server", "vpshufb", intrinsics.PSHUFB[64]),
    ("haswell", "vpsignb", intrinsics.PSIGNB[32]),
    ("haswell", "pause", intrinsics.PAUSE),
    (ARM, "smull", intrinsics.SMULL),
    (ARM, "saddlp", intrinsics.SADDLP),
    (ARM, "addp", intrinsics.ADDP_SHORTS),
    (ARM, "addp", intrinsics.ADDP_INTS),
    (ARM, "sdot", intrinsics.SDOT),
    ("neoverse-n2", "usdot", intrinsics.USDOT),
    ("neoverse-n2", "usmmla", intrinsics.USMMLA),
    (ARM, "tbl", intrinsics.TBL1),
    (ARM, "tbl", intrinsics.TBL2),
    (ARM, "sri", intrinsics.SRI),
    (ARM, "isb", intrinsics.ISB),
]


def function(intrinsic: Intrinsic, triple: str) -> ir.Module:
    """A function that loads what the instruction takes and stores what it gives; small integers are constants."""
    module = ir.Module()
    module.triple = triple
    vectors = [kind for kind in intrinsic.arguments if isinstance(kind, ir.VectorType)]
    given = ir.Function(module, ir.FunctionType(ir.VoidType(), [kind.as_pointer() for kind in vectors] * 2), "f")
    b = ir.IRBuilder(given.append_basic_block())
    values = [b.load(pointer) for pointer in given.args[: len(vectors)]]
    values += [kind(5) for kind in intrinsic.arguments if not isinstance(kind, ir.VectorType)]
    result = intrinsic(b, *values)
    if not isinstance(intrinsic.result, ir.VoidType):
        b.store(result, b.bitcast(given.args[0], intrinsic.result.as_pointer()))
    b.ret_void()
    return module


def assembly(intrinsic: Intrinsic, cpu: str) -> str:
    target = machine(cpu)
    module = llvm.parse_assembly(str(function(intrinsic, target.triple)))
    module.verify()
    return target_machine(target).emit_assembly(module)


@pytest.mark.parametrize(("cpu", "mnemonic", "intrinsic"), CASES, ids=lambda value: getattr(value, "name", value))
def test_an_intrinsic_is_one_instruction_of_its_cpu(cpu, mnemonic, intrinsic):
    text = assembly(intrinsic, cpu)
    assert len(re.findall(rf"^\s+(?:{{vex}}\s+)?{mnemonic}\d?\b", text, re.MULTILINE)) == 1, text


def test_all_intrinsics_are_tried():
    there: list[Intrinsic] = []
    for value in vars(intrinsics).values():
        there += value.values() if isinstance(value, dict) else [value]
    assert {each.name for each in there if isinstance(each, Intrinsic)} == {each.name for _, _, each in CASES}


@pytest.mark.parametrize(("size", "cpu"), [(32, "alderlake"), (64, "icelake-server")])
def test_vpdpbusd_by_versions_of_llvm(monkeypatch, size, cpu):
    """LLVM before 22 declares its bytes as int32; later ones still read that, so that both can be compiled here."""
    dot = intrinsics.VPDPBUSD[size]
    words, few = f"<{size // 4} x i32>", f"<{size} x i8>"
    assert [str(kind) for kind in dot.declared(20)] == [words] * 3
    assert [str(kind) for kind in dot.declared(22)] == [words, few, few]
    triple = machine(cpu).triple
    for version, expected in ((20, [words] * 3), (21, [words] * 3), (22, [words, few, few]), (23, [words, few, few])):
        monkeypatch.setattr(llvm, "llvm_version_info", (version, 1, 0))
        module = function(dot, triple)
        declaration = module.globals[dot.name].function_type
        assert [str(kind) for kind in declaration.args] == expected
        assert str(declaration.return_type) == words
    monkeypatch.setattr(llvm, "llvm_version_info", (20, 1, 0))
    assert "vpdpbusd" in assembly(dot, cpu)
