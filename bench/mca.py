"""What the hot loops should cost on CPUs that are not at hand, by llvm-mca's models of them.

    python bench/mca.py [--llvm-mca PATH] [--out bench/results/mca-llvm19.csv] [--only neon]
    python bench/mca.py --assembly quants.s --lines 23-64,102-111,65-101x4 --model cortex-a72 --bytes 144

Every kernel is compiled for the CPU, its loops are cut out of the assembly, and llvm-mca (LLVM 19 or newer) runs them:

- decode: cycles per 64 bytes of weights, headers with their scales included: the header of a super-block of 256 columns
  followed by its 8 groups;
- prefill: the loop over the groups of a tile of tokens, as the share of cycles that the dot products alone would take.

The second form looks at another program's loop, cut out by hand: lines of an assembly file, some of them repeated as
often as an inner loop runs, and what one pass does: --bytes of weights read, or --macs, multiply-adds, to be compared
with the most that the model can do.

The models know no caches and no misses: these are limits of the execution units, not predictions of tokens/s. The model
of Cortex-A72 is that of A57; Cortex-A76 has none, and Neoverse N1, its sibling, stands for it. What the models of x86
with 512 bits price wrongly is replaced by instructions that they price as the CPUs do (STAND_INS).
"""

import argparse
import csv
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import script
from table_file import write

from edgeq.blocks.table import block_type
from edgeq.errors import UnsupportedError, UsageError
from edgeq.simd.isa import TABLE
from edgeq.toolchain.compile import assembly

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


# For a model: instructions that it prices wrongly, and others in their place, of the same operands.
# - 512-bit loads and broadcasts from memory take no arithmetic port of Intel's (LLVM 20 says so, too) nor AMD's.
# - Ice Lake Xeons have a second 512-bit float unit on port 5, and LLVM the model of the notebook CPU, which has not:
#   `vpdpbusd` and `vpmaddubsw` run on ports 0 and 5, with one cycle more of latency.
# - Zen 4 starts a 512-bit `vpdpbusd` every cycle, on the pipes of `vfmadd`, with its latency. The model needs two.
_LOAD = r"v(?:mov(?:dq)?[aup]\w+|p?broadcast[sd]\w*)\s+(\S*\([^)]*\)), (%zmm\d+)"
STAND_INS = {
    "icelake-server": (
        (_LOAD, r"vmovntdqa \1, \2"),
        (r"vfn?m(?:add|sub)\d+ps(\s.*%zmm\d+)", r"vpdpbusd\1"),
        (r"v(?:mul|add|sub)ps(\s[^{]*%zmm\d+)", r"vpmaddubsw\1"),
    ),
    "skylake-avx512": ((_LOAD, r"vmovntdqa \1, \2"),),
    "znver4": ((_LOAD, r"vmovups \1, \2"), (r"vpdpbusd(\s.*%zmm\d+)", r"vfmadd231ps\1")),
}

CASES = (
    Case("neon", "cortex-a72", "cortex-a72", r"smull2?|smlal2?", 1),
    Case("neon_dotprod", "cortex-a76", "neoverse-n1", r"sdot", 2),
    Case("neon_i8mm", "neoverse-n2", "neoverse-n2", r"usdot|usmmla", 2),
    Case("avx512vnni", "icelake-server", "icelake-server", r"vpdpbusd", 2),
    Case("avx512vnni", "znver4", "znver4", r"vpdpbusd", 1),
    Case("avxvnni", "alderlake", "alderlake", r"(?:\{vex\}\s+)?vpdpbusd", 2),
    Case("avx512", "skylake-avx512", "skylake-avx512", r"vpmaddubsw", 2),
)

MACS = {"cortex-a72": 8, "neoverse-n1": 32, "neoverse-n2": 64}  # the most 8-bit multiply-adds a cycle


OLDEST = 19  # models of older ones give other figures
INSTALL = f"install LLVM {OLDEST} or newer (Debian: apt install llvm-{OLDEST}), or give --llvm-mca PATH"


def find_llvm_mca(given: str | None = None) -> str:
    """The program to run. UnsupportedError if it is missing or too old."""
    names = [given] if given else ["llvm-mca-22", "llvm-mca-21", "llvm-mca-20", "llvm-mca-19", "llvm-mca"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise UnsupportedError(f"{given or 'llvm-mca'} is not there, or is no program: {INSTALL}")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"LLVM version (\d+)", told)
    if version is None or int(version[1]) < OLDEST:
        raise UnsupportedError(f"{found} is {f'of LLVM {version[1]}' if version else 'no llvm-mca'}: {INSTALL}")
    return found


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
    kept = [line.strip() for line in lines if re.match(r"\s+[a-z{]", line)]
    return [line for line in kept if not re.match(r"(b\.?\w*|cbn?z|tbn?z|j\w+)\s+\S*\.LBB", line)]


def count(lines: list[str], pattern: str) -> int:
    return sum(bool(re.match(rf"\s*(?:{pattern})\s", line)) for line in lines)


PREFETCH = r"prf\w+|prefetch\w+"


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]


def _around(inner: tuple[int, int], every: list[tuple[int, int]]) -> tuple[int, int]:
    """The next loop around a loop. LLVM turns loops round, and several jumps may lead back: it ends with the last."""
    wider = [loop for loop in every if _within(inner, loop)]
    same = [loop for loop in wider if not (loop[0] < wider[0][0] and loop[1] > wider[0][1])]
    return min(loop[0] for loop in same), max(loop[1] for loop in same)


def decode_loop(lines: list[str], dots: str) -> tuple[list[str], list[str]]:
    """Instructions of a matvec for the panels that it reads at once: what comes once a super-block, and a group.

    Of the innermost loops that multiply and prefetch, that over groups prefetches most; around it lies that over
    super-blocks, in which other loops run over the groups again, for mins. LLVM may do the first super-block apart: the
    last one counts.
    """
    every = loops(lines)

    def holds(loop: tuple[int, int], pattern: str) -> int:
        return count(lines[loop[0] : loop[1] + 1], pattern)

    found = [loop for loop in every if holds(loop, dots)]
    innermost = [loop for loop in found if not any(_within(inner, loop) for inner in found)]
    asking = [loop for loop in innermost if holds(loop, PREFETCH)]
    first, last = max(asking, key=lambda loop: (holds(loop, PREFETCH), loop))
    at, end = _around((first, last), every)
    others = [loop for loop in every if at < loop[0] and loop[1] <= end and (loop[1] < first or loop[0] > last)]
    header: list[str] = []
    pieces = sorted([(first, last), *(a for a in others if not any(_within(b, a) for b in others))])
    for loop in pieces:
        header += instructions(lines[at : loop[0]])
        if loop != (first, last):
            header += 8 // _groups(part := instructions(lines[loop[0] : loop[1] + 1])) * part
        at = loop[1] + 1
    header += instructions(lines[at : end + 1])
    return header, instructions(lines[first : last + 1])


def _groups(loop: list[str]) -> int:
    """How many groups one pass of a loop over mins does: LLVM unrolls it, where a group converts four panels' mins."""
    wide = any("zmm" in line for line in loop)
    return max(1, count(loop, "vcvtdq2ps") // (4 if wide else 8))


def prefill_loop(lines: list[str], dots: str) -> list[str]:
    """Instructions of one group and tile of tokens in a matmul: it multiplies and does not prefetch. Of two such loops
    the other one is of a narrower tile."""
    found: list[tuple[int, int]] = []
    for loop in loops(lines):
        part = lines[loop[0] : loop[1] + 1]
        if count(part, dots) and not count(part, PREFETCH) and not any(_within(inner, loop) for inner in found):
            found.append(loop)
    if not found:
        raise ValueError("no loop of a matmul found")
    first, last = max(found, key=lambda loop: count(lines[loop[0] : loop[1] + 1], dots))
    return instructions(lines[first : last + 1])


# ---- running llvm-mca ----


def stand_in(model: str, instruction: str) -> str:
    """What is given to llvm-mca for an instruction."""
    for pattern, other in STAND_INS.get(model, ()):
        if match := re.fullmatch(pattern, instruction):
            return match.expand(other)
    return instruction


def cycles(llvm_mca: str, model: str, code: list[str], iterations: int) -> float:
    """Cycles of one pass through `code`, in a steady state."""
    code = [stand_in(model, instruction) for instruction in code]
    triple = "x86_64-linux-gnu" if any("%" in line for line in code) else "aarch64-linux-gnu"
    features = ["-mattr=+dotprod,+i8mm"] if triple.startswith("aarch64") else []
    if model == "alderlake":  # this model alone does not know that a register xor itself depends on nothing
        code = [re.sub(r"vpxor\s+%xmm(\d+), %xmm\1, %xmm\1", r"vmovdqa %ymm15, %ymm\1", line) for line in code]
    command = [llvm_mca, f"-mtriple={triple}", f"-mcpu={model}", *features, f"-iterations={iterations}"]
    result = subprocess.run(command, input="\n".join(code) + "\n", capture_output=True, text=True, check=False)
    total = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    if result.returncode != 0 or total is None:
        raise UnsupportedError(f"{' '.join(command)} failed: {(result.stderr.strip() or 'no message').splitlines()[0]}")
    return int(total[1]) / iterations


def measure(llvm_mca: str, case: Case, name: str) -> dict[str, str | int]:
    lines = assembly("matmul", name, ISA[case.isa], case.cpu).splitlines()
    bt = block_type(name)
    header, group = decode_loop(lines, case.dots)
    panels, whole = ISA[case.isa].streams, cycles(llvm_mca, case.model, header + 8 * group, 20)
    tile = prefill_loop(lines, case.dots)
    # of whole registers: what 6-bit codes are centred with takes smaller ones
    dots = count([line for line in tile if case.isa != "avx512" or "zmm" in line], case.dots)
    tile_cycles = cycles(llvm_mca, case.model, tile, 100)
    return {
        "type": name,
        "body": case.isa,
        "compiled_for": case.cpu,
        "model": case.model,
        "decode_cycles_per_64_bytes": f"{whole * 64 / panels / (bt.header_bytes + 8 * bt.group_bytes):.2f}",
        "header_cycles": f"{cycles(llvm_mca, case.model, header, 100):.1f}",
        "group_cycles": f"{cycles(llvm_mca, case.model, group, 100):.1f}",
        "prefill_dots": dots,
        "prefill_cycles": f"{tile_cycles:.1f}",
        "prefill_share_of_peak": f"{dots / case.per_cycle / tile_cycles:.2f}",
    }


def cut(lines: list[str], parts: str) -> list[str]:
    """Instructions of some lines, counted from 1: "3-9,12-20x4" is 3 to 9, then four times 12 to 20."""
    code: list[str] = []
    for part in parts.split(","):
        match = re.fullmatch(r"(\d+)-(\d+)(?:x(\d+))?", part)
        if match is None or not 0 < int(match[1]) <= int(match[2]) <= len(lines):
            raise UsageError(f"--lines has {part!r}: give FIRST-LAST or FIRST-LASTxTIMES, within {len(lines)} lines")
        code += instructions(lines[int(match[1]) - 1 : int(match[2])]) * int(match[3] or 1)
    return code


def measure_lines(llvm_mca: str, arguments: argparse.Namespace) -> dict[str, str | int]:
    code = cut(arguments.assembly.read_text().splitlines(), arguments.lines)
    whole = cycles(llvm_mca, arguments.model, code, 100)
    row: dict[str, str | int] = {"name": arguments.name or arguments.assembly.name, "model": arguments.model}
    row |= {"instructions": len(code), "cycles": f"{whole:.1f}", "bytes": "", "cycles_per_64_bytes": ""}
    row |= {"macs": "", "share_of_peak": ""}
    if arguments.bytes:
        row |= {"bytes": arguments.bytes, "cycles_per_64_bytes": f"{whole * 64 / arguments.bytes:.2f}"}
    if arguments.macs:
        row |= {"macs": arguments.macs, "share_of_peak": f"{arguments.macs / MACS[arguments.model] / whole:.2f}"}
    return row


def append(path: Path, row: dict[str, str | int]) -> None:
    """One more row of a CSV file."""
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    write(path, [*rows, row], list(row))


def main() -> None:
    parser = argparse.ArgumentParser(description="Cycles of the hot loops on CPUs that are not at hand, by llvm-mca.")
    parser.add_argument("--llvm-mca", default=None, help="the program (default: the newest in PATH)")
    parser.add_argument("--only", default="", help="bodies whose names begin like this")
    parser.add_argument("--types", nargs="*", default=list(TYPES), choices=TYPES)
    parser.add_argument("--out", type=Path, default=None, help="write a CSV file; with --assembly add a row to it")
    parser.add_argument("--assembly", type=script.file, help="measure lines of this file instead")
    parser.add_argument("--lines", help="of it: FIRST-LAST or FIRST-LASTxTIMES, separated by commas")
    parser.add_argument("--model", choices=list(MACS), help="of the CPU")
    parser.add_argument("--bytes", type=script.count, help="of weights that these lines read")
    parser.add_argument("--macs", type=script.count, help="multiply-adds that these lines do")
    parser.add_argument("--name", help="what to call them")
    arguments = parser.parse_args()
    llvm_mca = find_llvm_mca(arguments.llvm_mca)
    if arguments.assembly:
        if not arguments.lines or not arguments.model:
            parser.error("--assembly needs --lines and --model")
        row = measure_lines(llvm_mca, arguments)
        print("  ".join(f"{value!s:>12}" for value in row.values()))
        if arguments.out:
            append(arguments.out, row)
        return
    rows = []
    for case in CASES:
        for name in arguments.types if case.isa.startswith(arguments.only) else ():
            rows.append(measure(llvm_mca, case, name))
            print("  ".join(f"{value!s:>12}" for value in rows[-1].values()), flush=True)
    if arguments.out and rows:
        write(arguments.out, rows, list(rows[0]))


if __name__ == "__main__":
    script.run(main)
