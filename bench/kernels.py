"""Speed of every kernel alone, on layers of TinyLlama's shape, without a model file.

    python bench/kernels.py [--only matmul attention ...] [--threads 1 2]

A synthetic model is walked as the runtime does it, and the steps of each kernel are timed by themselves:

matvec     one token, weights from memory (--megabytes of them): GB/s of weights, of the read bandwidth
matmul     128 tokens: G multiply-adds/s, of the byte dots' peak for that width of codes
embedding  128 tokens: GB/s of the f32 rows that it writes
attention  a prompt of 512: GFLOP/s; one token after 4096: GB/s of keys and values, of the read bandwidth
norm, silu_mul, pack, rope: 512 tokens: GB/s of the f32 rows that it reads, which come from a cache as in a model
encode     MB/s of f32 weights
step       microseconds that a step costs which does nothing, without and with a barrier

EDGEQ_ISA chooses the kernels' body. Rows are merged into bench/results/kernels-<CPU>-<cores>-cores.csv.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, cast

import numpy as np
import script
from machine import cores, machine, results_file
from synthetic import SyntheticFile
from table_file import Measured, against, keep_each, key_of, number, rows_of, table

import edgeq
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.cli.roofline import Limits, code_bits, kv_read, middle, work
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned
from edgeq.graph.row_tables import TOKENS
from edgeq.kernels.encode_api import encode_panels
from edgeq.kernels.layout import STEP_WORDS
from edgeq.runtime.limits import dot_peak, read_bandwidth
from edgeq.runtime.program import Part
from edgeq.runtime.session import Session
from edgeq.toolchain import library

PROMPT, TILE_TOKENS, DEPTH = 512, 128, 4096
ATTENTION_LAYERS = 16  # whose keys and values no cache holds
EMPTY_STEPS = 2000


@dataclass
class KernelRow(Measured):
    """`value` in `unit`, from median seconds; `limit` in the same unit, from measurements before and after."""

    KEY: ClassVar = ("kernel", "shape", "isa", "threads")

    date: str
    machine: str
    isa: str
    edgeq: str
    kernel: str
    shape: str
    threads: int
    seconds: float
    value: float
    unit: str
    limit: float | None
    of_limit: float | None


def row(
    kernel: str, shape: str, threads: int, seconds: float, value: float, unit: str, limit: float | None = None
) -> KernelRow:
    return KernelRow(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        isa=library.chosen_isa().name,
        edgeq=edgeq.__version__,
        kernel=kernel,
        shape=shape,
        threads=threads,
        seconds=seconds,
        value=value,
        unit=unit,
        limit=limit,
        of_limit=None if limit is None else value / limit,
    )


def open_session(model: SyntheticFile, threads: int, **options: Any) -> Session:
    return Session(cast(File, model), threads=threads, announce=_announce, **options)


def _announce(line: str) -> None:
    if line.startswith("compiling"):
        print(line, file=sys.stderr)


def runs(kernels: list[str]) -> list[tuple[str, int, int]]:
    """Neighbouring steps of the same kernel, as (kernel, first, count): their starts cost less together."""
    found, first = [], 0
    for name, same in groupby(kernels):
        count = len(list(same))
        found.append((name, first, count))
        first += count
    return found


def fill(session: Session, positions: int) -> None:
    """Write keys and values of so many positions, a multiple of a batch: all steps but attention, which costs most."""
    plan = session.plan
    wanted = [not name.startswith("attention") for name in plan.kernels]
    tape = plan.tape.reshape(-1, STEP_WORDS)[wanted].copy()
    tape[:, -1] = 1
    for first in range(0, positions, session.batch):
        enter(session, session.batch, first)
        session.team.run(tape.ctypes.data, len(tape))


def enter(session: Session, tokens: int, position: int) -> None:
    """Let the session's tape compute so many tokens at `position`, and logits of the last."""
    session.sequence.position = position
    session.program.enter([Part(session.sequence, np.arange(tokens) % session.model.vocab_size, [tokens - 1])])


def walk(session: Session, tokens: int, position: int) -> list[tuple[str, float]]:
    """Walk the session's tape once; (kernel, seconds) of each run of steps."""
    plan, seconds = session.plan, []
    enter(session, tokens, position)
    for name, first, count in runs(plan.kernels):
        tape = plan.tape[first * STEP_WORDS :][: count * STEP_WORDS].copy()
        tape[-1] = 1  # a tape ends with a barrier
        start = time.perf_counter()
        session.team.run(tape.ctypes.data, count)
        seconds.append((name, time.perf_counter() - start))
    return seconds


def repeated(run: Callable[[], Any], least: float) -> list[Any]:
    """Results of `run`, at least three times and for at least `least` seconds, after one that does not count."""
    run()
    results, began = [], time.perf_counter()
    while len(results) < 3 or time.perf_counter() - began < least:
        results.append(run())
    return results


def per_kernel(walks: list[list[tuple[str, float]]]) -> dict[str, float]:
    """Median seconds of a walk that each kernel takes. The last matrix, which serves one row of logits, is `head`."""
    last = max(i for i, (name, _) in enumerate(walks[0]) if name.startswith("matmul"))
    sums = []
    for each in walks:
        total: dict[str, float] = defaultdict(float)
        for i, (name, seconds) in enumerate(each):
            total["head" if i == last else name] += seconds
        sums.append(total)
    return {name: median(total[name] for total in sums) for name in sums[0]}


def limits_of(session: Session, bits: list[int]) -> Limits:
    return Limits(read_bandwidth(session.team, 2), {b: dot_peak(session.team, b, 2) for b in bits if b <= 8})


def measured(session: Session, tokens: int, position: int, least: float) -> tuple[dict[str, float], Limits]:
    """Seconds per kernel, and the machine's limits of the same minute."""
    bits = work(session.file.tensors).bits
    before = limits_of(session, bits)
    walks = repeated(lambda: walk(session, tokens, position), least)
    return per_kernel(walks), middle([before, limits_of(session, bits)])


def matmuls(threads: int, options: argparse.Namespace) -> Iterator[KernelRow]:
    for name in options.types:
        model = SyntheticFile(name, nbytes_at_least=options.megabytes << 20)
        asked = work(model.tensors)
        shape = f"1 token, {asked.nbytes / 1e6:.0f} MB"
        with open_session(model, threads, context=TILE_TOKENS) as session:
            seconds, limits = measured(session, 1, 0, options.seconds)
            took, nbytes = seconds[f"matmul:{name}"] + seconds["head"], asked.nbytes / 1e9
            yield row(f"matvec:{name}", shape, threads, took, nbytes / took, "GB/s", limits.read_bandwidth / 1e9)
            seconds, limits = measured(session, TILE_TOKENS, 0, options.seconds)
            shape, peak = f"{TILE_TOKENS} tokens", limits.dot_peak.get(code_bits(name))
            took, limit = seconds[f"matmul:{name}"], None if peak is None else peak / 1e9
            rate = TILE_TOKENS * sum(asked.layers.values()) / 1e9 / took
            yield row(f"matmul:{name}", shape, threads, took, rate, "G multiply-adds/s", limit)
            took = seconds[f"embedding:{name}"]
            rate = TILE_TOKENS * 4 * model.metadata["config"]["hidden_size"] / 1e9 / took
            yield row(f"embedding:{name}", shape, threads, took, rate, "GB/s")


def attention(threads: int, options: argparse.Namespace) -> Iterator[KernelRow]:
    for kv in ("f16", "q8_0"):
        model = SyntheticFile("Q4_0", ATTENTION_LAYERS, shared=True, intermediate_size=256)
        with open_session(model, threads, context=DEPTH + 16, kv=kv) as session:
            name = next(n for n in session.plan.kernels if n.startswith("attention"))
            heads = session.model.heads
            seconds, _ = measured(session, PROMPT, 0, options.seconds)
            pairs = PROMPT * (PROMPT + 1) // 2 * heads.num_attention_heads * ATTENTION_LAYERS
            flops = 4 * heads.head_dim * pairs / 1e9  # multiply and add, for the score and for the sum of values
            yield row(name, f"{PROMPT} tokens", threads, seconds[name], flops / seconds[name], "GFLOP/s")
            fill(session, DEPTH)
            seconds, limits = measured(session, 1, DEPTH, options.seconds)
            took, read = seconds[name], (DEPTH + 1) * sum(kv_read(session).values()) / 1e9
            limit = limits.read_bandwidth / 1e9
            yield row(name, f"1 token after {DEPTH}", threads, took, read / took, "GB/s", limit)


def elementwise(threads: int, options: argparse.Namespace) -> Iterator[KernelRow]:
    shape, layers = f"{PROMPT} tokens", 2
    model = SyntheticFile("Q4_0", layers, shared=True)
    with open_session(model, threads, context=PROMPT) as session:
        config, heads = model.metadata["config"], session.model.heads
        seconds, _ = measured(session, PROMPT, 0, options.seconds)
        rotated = (heads.num_attention_heads + 2 * heads.num_key_value_heads) * heads.head_dim
        row_widths = {
            "norm": 2 * layers * config["hidden_size"],
            "silu_mul": 2 * layers * config["intermediate_size"],
            f"rope:{session.kv}": layers * rotated,
        }
        for name, width in row_widths.items():
            yield row(name, shape, threads, seconds[name], 4 * PROMPT * width / 1e9 / seconds[name], "GB/s")
    # Attention packs its own result where heads are a multiple of 32 wide; others leave that to `pack`.
    model = SyntheticFile("Q4_0", layers, shared=True, head_dim=80)
    with open_session(model, threads, context=PROMPT) as session:
        seconds, _ = measured(session, PROMPT, 0, options.seconds)
        if "pack" in seconds:
            took, width = seconds["pack"], layers * session.model.heads.num_attention_heads * 80
            yield row("pack", shape, threads, took, 4 * PROMPT * width / 1e9 / took, "GB/s")


def encoders(threads: int, options: argparse.Namespace) -> Iterator[KernelRow]:
    weights = np.random.default_rng(1).standard_normal((512, 2048), dtype=np.float32)
    for name in options.types:
        if BLOCK_TYPES[name].quantized:
            times = repeated(lambda name=name: timed(lambda: encode_panels(weights, name, threads)), options.seconds)
            took = median(times)
            yield row(f"encode:{name}", "512 x 2048", threads, took, weights.nbytes / 1e6 / took, "MB/s")


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def steps(threads: int, options: argparse.Namespace) -> Iterator[KernelRow]:
    """A tape of norms of no tokens."""
    with open_session(SyntheticFile("Q4_0", 1, shared=True), threads, context=16) as session:
        plan = session.plan
        norm = plan.tape[plan.kernels.index("norm") * STEP_WORDS :][: STEP_WORDS - 1]
        plan.tables.counts[TOKENS] = 0
        tape = aligned(EMPTY_STEPS * STEP_WORDS * 8).view(np.int64)
        for barrier in (0, 1):
            tape.reshape(EMPTY_STEPS, STEP_WORDS)[:] = [*norm, barrier]
            tape[-1] = 1
            took = repeated(
                lambda: timed(lambda: session.team.run(tape.ctypes.data, EMPTY_STEPS)), min(options.seconds, 0.2)
            )
            cost = median(took) / EMPTY_STEPS
            shape = "with a barrier" if barrier else "without a barrier"
            yield row("step", shape, threads, cost, 1e6 * cost, "microseconds")


GROUPS = {
    "matmul": matmuls,
    "attention": attention,
    "elementwise": elementwise,
    "encode": encoders,
    "step": steps,
}
HEADINGS = (
    ("kernel", False),
    ("shape", False),
    ("body", False),
    ("threads", True),
    ("speed", True),
    ("unit", False),
    ("of the limit", True),
)


def measure(options: argparse.Namespace) -> Iterator[KernelRow]:
    for threads in options.threads:
        for group in options.only:
            for found in GROUPS[group](threads, options):
                print(f"{found.kernel:18} {found.shape:22} {found.value:9.4g} {found.unit}", file=sys.stderr)
                yield found


def markdown(cells: list[dict[str, str]]) -> str:
    return table(
        HEADINGS,
        [
            (
                c["kernel"],
                c["shape"],
                c["isa"],
                c["threads"],
                number(c["value"]),
                c["unit"],
                against(c["of_limit"], c["limit"]),
            )
            for c in cells
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups  [default: all]")
    parser.add_argument("--types", nargs="+", choices=BLOCK_TYPES, default=list(BLOCK_TYPES), help="[default: all]")
    parser.add_argument(
        "--threads", nargs="+", type=script.count, default=sorted({1, cores()}), help="[default: 1 and all]"
    )
    parser.add_argument("--seconds", type=script.seconds, default=1.0, help="time per kernel, at least  [default: 1]")
    parser.add_argument("--megabytes", type=script.count, default=256, help="weights of a matvec  [default: 256]")
    parser.add_argument("--results", type=Path, default=results_file("kernels"), help="CSV file to merge rows into")
    parser.add_argument("--table", action="store_true", help="only show the results as a table")
    options = parser.parse_args()
    if options.table:
        if not options.results.exists():
            parser.error(f"{options.results}: no such file: measure the kernels first, or give --results")
        print(markdown(rows_of(options.results, KernelRow)))
        return
    keys = {found.key for found in keep_each(options.results, KernelRow, measure(options))}
    print(markdown([c for c in rows_of(options.results, KernelRow) if key_of(c, KernelRow) in keys]))


if __name__ == "__main__":
    script.run(main)
