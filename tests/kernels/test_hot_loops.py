"""The assembly of the hot loops: the right instruction, no spill, no call. Whatever this x86-64 can execute."""

import functools
import platform
import re
import sys

import pytest

import edgeq
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.kernels.streams import STEP
from edgeq.simd.isa import TABLE

sys.path.insert(0, edgeq.__path__[0] + "/../bench")
import mca

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 assembly")

ISA = {row.name: row for row in TABLE}


def blocks(text: str) -> list[list[str]]:
    """Basic blocks as lists of instructions."""
    result: list[list[str]] = [[]]
    for line in text.splitlines():
        if re.match(r"\.LBB\d+_\d+:", line):
            result.append([])
        elif re.match(r"\s+[a-z{]", line):
            result[-1].append(line.strip().removeprefix("{vex}").strip())
            if line.strip().startswith("j"):
                result.append([])
    return result


@functools.cache
def matmul(name: str, isa: str, cpu: str) -> list[list[str]]:
    from edgeq.toolchain.compile import assembly

    return blocks(assembly("matmul", name, ISA[isa], cpu))


def starting(block: list[str], instruction: str) -> int:
    return sum(line.startswith(instruction) for line in block)


def hottest(name: str, isa: str, cpu: str, instruction: str, asked: int) -> list[str]:
    """The block of a matmul that multiplies most, of those that ask for so many lines ahead."""
    found = [block for block in matmul(name, isa, cpu) if starting(block, "prefetch") == asked]
    return max(found, key=lambda block: starting(block, instruction))


# With 16 registers, the sums of a tile of 4 tokens are kept in memory: 8 registers' worth. Where 16 columns share a
# scale, some dots of the first 16 wait there too. With VNNI the starts of a tile's dots are in memory if there is a
# zero point: one register's. 6-bit codes before VNNI: eight products more, of shorter registers, say where int16 sums
# begin. 8-bit dots of AVX2 need two constants beside the totals of whole rows: 12 of 350 instructions store a register.
@pytest.mark.parametrize(
    ("name", "isa", "cpu", "instruction", "dots", "stores"),
    [
        ("Q4_K", "avx512vnni", "icelake-server", "vpdpbusd", 64, 0),
        ("Q6_K", "avx512vnni", "icelake-server", "vpdpbusd", 64, 2),
        ("Q8_0", "avx512vnni", "icelake-server", "vpdpbusd", 64, 1),
        ("Q4_K", "avx512", "skylake-avx512", "vpmaddubsw", 64, 0),
        ("Q6_K", "avx512", "skylake-avx512", "vpmaddubsw", 72, 2),
        ("Q4_K", "avxvnni", "alderlake", "vpdpbusd", 64, 8),
        ("Q6_K", "avxvnni", "alderlake", "vpdpbusd", 64, 13),
        ("Q8_0", "avxvnni", "alderlake", "vpdpbusd", 64, 8),
        ("Q4_K", "avx2", "haswell", "vpmaddubsw", 64, 8),
        ("Q6_K", "avx2", "haswell", "vpmaddubsw", 72, 21),
        ("I8_R", "avx512vnni", "icelake-server", "vpdpbusd", 64, 0),
        ("I8_R", "avx512", "skylake-avx512", "vpmaddubsw", 128, 0),
        ("I8_R", "avxvnni", "alderlake", "vpdpbusd", 64, 0),
        ("I8_R", "avx2", "haswell", "vpmaddubsw", 64, 12),
    ],
)
def test_matmul_tile(name, isa, cpu, instruction, dots, stores):
    block = hottest(name, isa, cpu, instruction, 0)
    assert starting(block, instruction) == dots
    assert not [line for line in block if "call" in line.split()[0]]
    stored = [line for line in block if re.search(r",\s*-?\d*\(%r[sb]p\)", line) and not line.startswith("cmp")]
    assert len(stored) <= stores, "spills in the hot loop"


# Sums of four panels and a token: in registers within a group, and at its end in memory. Where 16 columns share a
# scale, 16 registers are too few for the sums of both halves; else one sum in 300 instructions waits in memory.
@pytest.mark.parametrize(
    ("name", "isa", "cpu", "instruction", "dots", "stores"),
    [
        ("Q4_K", "avx2", "haswell", "vpmaddubsw", 64, 9),
        ("Q6_K", "avx2", "haswell", "vpmaddubsw", 64, 24),
        ("Q4_K", "avxvnni", "alderlake", "vpdpbusd", 64, 8),
        ("Q4_K", "avx512vnni", "icelake-server", "vpdpbusd", 32, 4),
        ("Q6_K", "avx512vnni", "icelake-server", "vpdpbusd", 32, 4),
        ("I8_R", "avx2", "haswell", "vpmaddubsw", 64, 7),
        ("I8_R", "avx512vnni", "icelake-server", "vpdpbusd", 32, 0),
    ],
)
def test_matvec_of_four_panels(name, isa, cpu, instruction, dots, stores):
    block = hottest(name, isa, cpu, instruction, 4 * BLOCK_TYPES[name].group_bytes // STEP)
    assert starting(block, instruction) == dots
    assert not [line for line in block if "call" in line.split()[0]]
    stored = [line for line in block if re.search(r"mm\d+,\s*-?\d*\(%r", line)]
    assert len(stored) <= stores, "spills in the hot loop"


# A panel and a tile of 4 tokens, or 8 where there are 32 registers: as above, with two more sums in memory.
@pytest.mark.parametrize(
    ("name", "isa", "cpu", "instruction", "stores"),
    [
        ("Q4_K", "avx2", "haswell", "vpmaddubsw", 14),
        ("Q6_K", "avx2", "haswell", "vpmaddubsw", 25),
        ("Q4_K", "avxvnni", "alderlake", "vpdpbusd", 8),
        ("Q4_K", "avx512vnni", "icelake-server", "vpdpbusd", 8),
        ("Q6_K", "avx512vnni", "icelake-server", "vpdpbusd", 8),
    ],
)
def test_few_tokens(name, isa, cpu, instruction, stores):
    block = hottest(name, isa, cpu, instruction, BLOCK_TYPES[name].group_bytes // 64)
    assert starting(block, instruction) == 64
    assert not [line for line in block if "call" in line.split()[0]]
    stored = [line for line in block if re.search(r"mm\d+,\s*-?\d*\(%r", line)]
    assert len(stored) <= stores, "spills in the hot loop"


@pytest.mark.parametrize("kernel", [("attention", "8-f16"), ("embedding", "Q4_K")])
def test_strided_loops_neither_gather_nor_scatter(kernel):
    from edgeq.toolchain.compile import assembly

    text = assembly(*kernel, ISA["avx512vnni"], "icelake-server")
    assert "zmm" in text and "scatter" not in text and "gather" not in text


# What LLVM takes out of the loop over repetitions is not measured. It compiles the bodies of other CPUs, too.
PROBED = {case.isa: (case.cpu, case.dots) for case in mca.CASES} | {
    "avx2": ("haswell", "vpmaddubsw"),
    "portable": ("haswell", "vpmull[wd]|vpmaddwd"),
}


@pytest.mark.parametrize("isa", PROBED)
def test_a_probe_computes_every_dot_in_its_loop(isa):
    from edgeq.toolchain.compile import assembly

    cpu, dots = PROBED[isa]
    lines = assembly("probe", "dot-4", ISA[isa], cpu).splitlines()
    first, last = mca.loops(lines)[-1]
    assert mca.count(lines[first : last + 1], dots) == mca.count(lines, dots) >= 256
