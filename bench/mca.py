"""What the hot loops should cost on CPUs that are not at hand, by llvm-mca's models of them.

    python bench/mca.py [--llvm-mca PATH] [--out bench/results/mca-aarch64.csv] [--only neon]

Every kernel is compiled for the CPU, its loops are cut out of the assembly, and llvm-mca (LLVM 19 or newer) runs them:

- decode: cycles per 64 bytes of weights, headers with their scales included: the header of a super-block of 256 columns
  followed by its 8 groups;
- prefill: the loop over the groups of a tile of tokens, as the share of cycles that the dot products alone would take.

The models know no caches and no misses: these are limits of the execution units, not predictions of tokens/s. The model
of Cortex-A72 is that of A57; Cortex-A76 has none, and Neoverse N1, its sibling, stands for it.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeq.blocks.table import block_type
from edgeq.kernels.compile import assembly
from edgeq.simd.isa import TABLE

TYPES = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
ISA = {row.name: row for row in TABLE}


@dataclass(frozen=True)
class Case:
    """A body on a CPU: what LLVM compiles for, what llvm-mca models, the dot instructions, how many start a cycle."""

    isa: str
    cpu: str
    model: str
    dots: str
    per_cycle: float


CASES = (
    Case("neon", "cortex-a72", "cortex-a72", r"smull2?|smlal2?", 1),
    Case("neon_dotprod", "cortex-a76", "neoverse-n1", r"sdot", 2),
    Case("neon_i8mm", "neoverse-n2", "neoverse-n2", r"usdot|usmmla", 2),
    Case("avx512vnni", "icelake-server", "icelake-server", r"vpdpbusd", 2),
    Case("avx512vnni", "znver4", "znver4", r"vpdpbusd", 1),
    Case("avx512", "skylake-avx512", "skylake-avx512", r"vpmaddubsw", 2),
)


def find_llvm_mca() -> str:
    for name in ("llvm-mca-22", "llvm-mca-21", "llvm-mca-20", "llvm-mca-19", "llvm-mca"):
        if path := shutil.which(name):
            return path
    sys.exit("mca: no llvm-mca found: install LLVM 19 or newer (Debian: apt install llvm-19), or give --llvm-mca PATH")


# ---- cutting loops out of assembly ----


def loops(lines: list[str]) -> list[tuple[int, int]]:
    """Line ranges [first, last] from a label to a later jump back to it, smallest first."""
    labels = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"(\.LBB\d+_\d+):", line))}
    found = set()
    for i, line in enumerate(lines):
        jump = re.match(r"\s+(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s.*?(\.LBB\d+_\d+)\s*$", line)
        if jump and labels[jump[1]] <= i:
            found.add((labels[jump[1]], i))
    return sorted(found, key=lambda loop: loop[1] - loop[0])


def instructions(lines: list[str]) -> list[str]:
    """The instructions in some lines, without jumps: llvm-mca follows none."""
    kept = [line.strip() for line in lines if re.match(r"\s+[a-z]", line)]
    return [line for line in kept if not re.match(r"(b\.?\w*|cbn?z|tbn?z|j\w+)\s+\S*\.LBB", line)]


def count(lines: list[str], pattern: str) -> int:
    return sum(bool(re.match(rf"\s*(?:{pattern})\s", line)) for line in lines)


def decode_loop(lines: list[str], dots: str) -> tuple[list[str], list[str]]:
    """Instructions of a super-block's header, and of one group, in a matvec: it prefetches."""
    every = loops(lines)

    def hot(loop: tuple[int, int]) -> bool:
        part = lines[loop[0] : loop[1] + 1]
        return count(part, dots) > 0 and count(part, r"prf\w+|prefetch\w+") > 0

    first, last = next(loop for loop in every if hot(loop))
    once = count(lines[first : last + 1], dots)
    around = [
        loop
        for loop in every
        if loop[0] < first and loop[1] > last and count(lines[loop[0] : loop[1] + 1], dots) == once
    ]
    at, end = around[0]
    for begin, stop in around[1:]:  # LLVM may put a part of the outer loop before its start
        if begin > at and stop > end:
            end = stop
    header: list[str] = []
    while at <= end:
        inner = [loop for loop in every if loop[0] == at and loop not in around and loop[1] <= end]
        if at == first:
            at = last + 1
        elif inner:  # over the groups, too: the mins
            header += 8 * instructions(lines[at : inner[0][1] + 1])
            at = inner[0][1] + 1
        else:
            header += instructions(lines[at : at + 1])
            at += 1
    return header, instructions(lines[first : last + 1])


def prefill_loop(lines: list[str], dots: str) -> list[str]:
    """Instructions of one group and tile of tokens in a matmul: it multiplies and does not prefetch."""
    for first, last in loops(lines):
        part = lines[first : last + 1]
        if count(part, dots) > 0 and count(part, r"prf\w+|prefetch\w+") == 0:
            return instructions(part)
    raise ValueError("no loop of a matmul found")


# ---- running llvm-mca ----


def cycles(llvm_mca: str, model: str, code: list[str], iterations: int) -> float:
    """Cycles of one pass through `code`, in a steady state."""
    triple = "x86_64-linux-gnu" if any("%" in line for line in code) else "aarch64-linux-gnu"
    features = ["-mattr=+dotprod,+i8mm"] if triple.startswith("aarch64") else []
    command = [llvm_mca, f"-mtriple={triple}", f"-mcpu={model}", *features, f"-iterations={iterations}"]
    result = subprocess.run(command, input="\n".join(code) + "\n", capture_output=True, text=True, check=False)
    total = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    if result.returncode != 0 or total is None:
        sys.exit(f"mca: {' '.join(command)} failed: {result.stderr.strip().splitlines()[0]}")
    return int(total[1]) / iterations


def measure(llvm_mca: str, case: Case, name: str) -> dict[str, str | int]:
    lines = assembly("matmul", name, ISA[case.isa], case.cpu).splitlines()
    bt = block_type(name)
    header, group = decode_loop(lines, case.dots)
    whole = cycles(llvm_mca, case.model, header + 8 * group, 20)
    tile = prefill_loop(lines, case.dots)
    dots = count(tile, case.dots)
    tile_cycles = cycles(llvm_mca, case.model, tile, 100)
    return {
        "type": name,
        "body": case.isa,
        "compiled_for": case.cpu,
        "model": case.model,
        "decode_cycles_per_64_bytes": f"{whole * 64 / (bt.header_bytes + 8 * bt.group_bytes):.2f}",
        "header_cycles": f"{cycles(llvm_mca, case.model, header, 100):.1f}",
        "group_cycles": f"{cycles(llvm_mca, case.model, group, 100):.1f}",
        "prefill_dots": dots,
        "prefill_cycles": f"{tile_cycles:.1f}",
        "prefill_share_of_peak": f"{dots / case.per_cycle / tile_cycles:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Cycles of the hot loops on CPUs that are not at hand, by llvm-mca.")
    parser.add_argument("--llvm-mca", default=None, help="the program (default: the newest in PATH)")
    parser.add_argument("--only", default="", help="bodies whose names begin like this")
    parser.add_argument("--types", nargs="*", default=list(TYPES), choices=TYPES)
    parser.add_argument("--out", type=Path, default=None, help="write a CSV file")
    arguments = parser.parse_args()
    llvm_mca = arguments.llvm_mca or find_llvm_mca()
    rows = []
    for case in CASES:
        for name in arguments.types if case.isa.startswith(arguments.only) else ():
            rows.append(measure(llvm_mca, case, name))
            print("  ".join(f"{value!s:>12}" for value in rows[-1].values()), flush=True)
    if arguments.out and rows:
        temporary = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, arguments.out)


if __name__ == "__main__":
    main()
