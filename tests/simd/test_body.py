"""What every instruction set body promises, tried on those that this CPU runs; and that nothing else knows one."""

import contextlib
import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from defined_instructions import defined_instructions
from llvmlite import ir

import edgeq
from edgeq.simd import emit, isa
from edgeq.simd.body import Body, Codes
from edgeq.simd.machine import host, is_aarch64, machine
from edgeq.simd.target import target_machine

ROWS = {row.name: row for row in isa.TABLE}
HERE = [row.name for row in isa.available()]
# x86 bodies run on any x86 CPU: where it lacks the instructions, by their definitions
RUN = HERE if is_aarch64(host().triple) else [name for name in ROWS if not name.startswith("neon")]
CASES = [(name, bits) for name in RUN for bits in ((8,) if name == "portable" else (4, 5, 6, 8))]


def run(name: str, generate: Callable[[ir.IRBuilder, ir.Value, ir.Value], list[ir.Value]], lines, words) -> np.ndarray:
    """What `generate(builder, address of lines, address of words)` gives: vectors of 64 bytes, as int32 [.., 16]."""
    module = ir.Module()
    module.triple = host().triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [emit.I64] * 3), f"body_{name}")
    b = ir.IRBuilder(function.append_basic_block())
    with contextlib.nullcontext() if name in HERE else defined_instructions():
        results = generate(b, *function.args[:2])
    for i, value in enumerate(results):
        emit.store(b, emit.offset(b, function.args[2], 64 * i), value)
    b.ret_void()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    engine = llvm.create_mcjit_compiler(parsed, target_machine(machine()))
    engine.finalize_object()
    lines, words, out = aligned(lines), aligned(words), aligned(np.zeros((len(results), 16), np.int32))
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(engine.get_function_address(function.name))
    call(lines.ctypes.data, words.ctypes.data, out.ctypes.data)
    return out


def aligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def numbers(bits: int, tokens: int, lines: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Codes u8 [lines][16 rows][4] and activations i8 [lines][tokens][4], the extremes of both among them."""
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (lines, 16, 4), np.uint8)
    words = rng.integers(-127, 128, (lines, tokens, 4), np.int8)
    codes[:, :2], codes[:, 2] = 2**bits - 1, 0
    words[:, 0], words[:, -1] = 127, -127
    return codes, words


def dots(body: Body, codes: np.ndarray, words: np.ndarray, bits: int) -> np.ndarray:
    """int32 [tokens, 16], of codes less 128 where the body takes that away."""
    less = 128 if bits == 8 and bits in body.centred else 0
    return np.einsum("jrc,jtc->tr", codes.astype(np.int32) - less, words.astype(np.int32))


def load_lines(b: ir.IRBuilder, address: ir.Value, which: range) -> list[ir.Value]:
    return [emit.load(b, emit.offset(b, address, 64 * i), emit.U8X64) for i in which]


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_dots_of_lines(name, bits):
    body = ROWS[name].body()
    codes, words = numbers(bits, 1)
    begin = emit.splat_constant(emit.I32X16, 1000)
    for count in (4, 8):
        found = run(
            name,
            lambda b, lines, at, n=count: [body.dot_lines(b, begin, load_lines(b, lines, range(n)), at, bits)],
            codes,
            words,
        )
        np.testing.assert_array_equal(found, 1000 + dots(body, codes[:count], words[:count], bits))


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_dots_of_panels(name, bits):
    """Two panels; the second one's code lines are those of the first in the opposite order."""
    body = ROWS[name].body()
    codes, words = numbers(bits, 1)

    def generate(b, lines, at):
        starts = [emit.splat_constant(emit.I32X16, value) for value in (0, -7)]

        def lines_of(panel, i):
            both = [2 * i, 2 * i + 1]
            return [load_lines(b, lines, range(8))[7 - j if panel else j] for j in both]

        return body.dot_panels(b, starts, lines_of, (0, 1, 2, 3), at, bits)

    expected = [dots(body, codes, words, bits)[0], dots(body, codes[::-1], words, bits)[0] - 7]
    np.testing.assert_array_equal(run(name, generate, codes, words), expected)


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_dots_of_a_tile(name, bits):
    body, tokens = ROWS[name].body(), ROWS[name].tile
    codes, words = numbers(bits, tokens)

    def generate(b, lines, at):
        begin = [emit.splat_constant(emit.I32X16, 10 * t) for t in range(tokens)]
        return body.dot_tile(b, at_pairs(b, body, lines), at, tokens, 8, bits, begin.__getitem__)

    expected = dots(body, codes, words, bits) + 10 * np.arange(tokens)[:, None]
    np.testing.assert_array_equal(run(name, generate, codes, words), expected)


def at_pairs(b: ir.IRBuilder, body: Body, lines: ir.Value) -> ir.Value:
    """The address of the same 8 lines as `dot_tile` reads them."""
    memory = b.alloca(ir.ArrayType(emit.U8X64, 8))
    memory.align = 64
    address = b.ptrtoint(memory, emit.I64)
    for i in range(0, 8, 2):
        for j, line in enumerate(body.arrange_pair(b, *load_lines(b, lines, range(i, i + 2)))):
            emit.store(b, emit.offset(b, address, 64 * (i + j)), line, 32)
    return address


@pytest.mark.parametrize("name", RUN)
def test_lookup(name):
    body, table = ROWS[name].body(), [7 * i % 256 for i in range(100, 116)]
    codes = np.arange(64, dtype=np.uint8).reshape(1, 64) * 5 % 16
    entries = ir.Constant(emit.U8X16, table)
    found = run(name, lambda b, lines, at: [body.lookup(b, entries, load_lines(b, lines, range(1))[0])], codes, codes)
    np.testing.assert_array_equal(found.view(np.uint8), np.array(table, np.uint8)[codes])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_all_that_leads_to_a_body(name):
    body = ROWS[name].body()
    assert type(body).__mro__.index(Body) <= 2, "bodies derive at most two deep"
    kinds = [Codes(bits, zero, coded=coded) for bits in (4, 5, 6, 8) for zero in (0, 1 << bits - 1) for coded in (0, 1)]
    for kind in kinds:
        if body.scales_integers(kind) or body.tile_centre(kind):
            assert body.bias(kind) == 0, "integers that are scaled do not start at a float"


def test_a_body_must_have_its_dot_products():
    class Halfway(Body):
        def dot_lines(self, b, total, lines, words, code_bits):
            return total

    with pytest.raises(TypeError, match="dot_tile"):
        Halfway()


def test_defaults_are_enough():
    """A body of the required methods alone is multiplied with by everything that reads several panels."""
    portable = ROWS["portable"].body()

    class Toy(Body):
        dot_lines, dot_tile, lookup = portable.dot_lines, portable.dot_tile, portable.lookup

    body, (codes, words) = Toy(), numbers(4, 1)

    def generate(b, lines, at):
        begin = body.start(b, emit.I32(5), None)
        rows = load_lines(b, lines, range(8))
        return body.dot_panels(b, [begin] * 3, lambda panel, i: rows[2 * i : 2 * i + 2], (0, 1, 2, 3), at, 4)

    np.testing.assert_array_equal(
        run("portable", generate, codes, words), np.repeat(dots(body, codes, words, 4) + 5, 3, 0)
    )


def test_shared_code_asks_for_no_names_and_no_architecture():
    """`machine` alone, which says what a CPU is, knows AArch64 from others."""
    for path in Path(edgeq.__file__).parent.joinpath("simd").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(has|get)attr\(", source), path.name
        if path.name != "machine.py":
            assert "is_aarch64" not in source, path.name
        if path.name not in ("isa.py", "machine.py"):
            others = [name for name in ROWS if re.search(rf"\bsimd(\.| import .*\b){name}\b", source)]
            assert not others, f"{path.name} knows {others}"
