"""The assembly of the hot loops on three tiers of AArch64, compiled here: the right instructions, no call, no spill."""

import re
import sys
from collections.abc import Callable

import pytest

import edgeq
from edgeq.toolchain.sources import digest

sys.path.insert(0, edgeq.__path__[0] + "/../bench")
import mca

CASES = {case.cpu: case for case in mca.CASES if case.isa.startswith("neon")}
TYPES = ["Q4_0", "Q4_K", "Q6_K", "Q8_0"]
# Registers that LLVM keeps in memory in the loop over groups of a matvec; 0 for all others.
SPILLED = {
    ("cortex-a72", "Q4_K"): 2,
    ("cortex-a72", "Q6_K"): 8,
    ("cortex-a72", "Q8_0"): 16,
    ("cortex-a76", "Q6_K"): 4,
    ("neoverse-n2", "Q6_K"): 4,
}


@pytest.fixture(scope="session")
def assembly(request: pytest.FixtureRequest) -> Callable[[str, str, str], list[str]]:
    """Lines of assembly; compiled once for the same sources."""
    folder = request.config.cache.mkdir("edgeq-assembly")

    def lines(family: str, variant: str, cpu: str) -> list[str]:
        isa = mca.ISA[CASES[cpu].isa]
        kept = folder / f"{digest(family, isa)}-{family}-{variant}-{cpu}.s"
        if not kept.is_file():
            kept.write_text(mca.assembly(family, variant, isa, cpu))
        return kept.read_text().splitlines()

    return lines


def spilled(code: list[str]) -> int:
    """Vector registers that a loop stores to the stack."""
    stores = [line for line in code if re.match(r"st[pru]+\s+q.*\[sp", line)]
    return sum(2 if line.startswith("stp") else 1 for line in stores)


def calls(code: list[str]) -> list[str]:
    return [line for line in code if re.match(r"blr?\s", line)]


@pytest.mark.parametrize("cpu", CASES)
@pytest.mark.parametrize("name", TYPES)
def test_matvec(assembly, name, cpu):
    """A group: 512 products per 16 rows, 16 to a `sdot`, 8 to a `smull`."""
    case = CASES[cpu]
    header, group = mca.decode_loop(assembly("matmul", name, cpu), case.dots)
    assert mca.count(group, case.dots) == (64 if case.isa == "neon" else 32)
    assert not calls(header + group)
    assert spilled(group) <= SPILLED.get((cpu, name), 0)


@pytest.mark.parametrize("cpu", CASES)
@pytest.mark.parametrize("name", TYPES)
def test_matmul_tile(assembly, name, cpu):
    """A group and 4 tokens; `usmmla` makes 32 products. Few registers go through memory."""
    case = CASES[cpu]
    group = mca.prefill_loop(assembly("matmul", name, cpu), case.dots)
    assert mca.count(group, case.dots) == {"neon": 256, "neon_dotprod": 128, "neon_i8mm": 64}[case.isa]
    if case.isa == "neon_i8mm":
        assert mca.count(group, "usmmla") == 64
    assert not calls(group)
    assert spilled(group) <= len(group) // 8


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_attention(assembly, cpu):
    """Scores and values of a tile: 4 rows x 16 lanes of f32 by one multiplication each, without a horizontal sum."""
    lines = assembly("attention", "4-f16", cpu)
    loops = [mca.instructions(lines[first : last + 1]) for first, last in mca.loops(lines)]
    tight = [loop for loop in loops if mca.count(loop, "fmla") == 16 and len(loop) < 40]
    assert tight
    for loop in tight:
        assert not calls(loop) and not spilled(loop)


def test_without_sdot_none_is_made(assembly):
    for name in TYPES:
        assert not [line for line in assembly("matmul", name, "cortex-a72") if re.search(r"\s[su]+dot\s|mmla\s", line)]
