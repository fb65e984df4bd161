"""`edgeq bench`: speed of prompts and of generation, in the columns of llama.cpp's llama-bench, beside this machine's
limits.

The table goes to stdout, what it is measured against and the latencies to stderr; `-o json` has all of it.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any, Protocol

import click

from edgeq.cli.options import THREADS, load_model
from edgeq.cli.units import binary_size, count
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.model import Model

COLUMNS = (  # name, width, whether numbers stand to the right
    ("model", 30, False),
    ("size", 10, True),
    ("params", 10, True),
    ("backend", 10, False),
    ("threads", 7, True),
    ("test", 13, True),
    ("t/s", 20, True),
)


class _Tensor(Protocol):
    """What `Work` needs to know of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Work:
    """What one token asks of the machine, as far as weights go (attention to earlier tokens comes on top).

    nbytes: bytes of the matrices it reads
    layers, head: multiply-adds per bits of a weight's code, in the layers and for the logits
    """

    nbytes: int
    layers: Mapping[int, int]
    head: Mapping[int, int]

    @property
    def bits(self) -> list[int]:
        """Widths of the codes, the most used one first; 16 and 32 are plain weights."""
        total = Counter(self.layers) + Counter(self.head)
        return [bits for bits, _ in total.most_common()]

    def multiply_adds(self, tokens: int) -> dict[int, int]:
        """Of a prompt: every layer for each token, logits for the last one only."""
        return {b: tokens * self.layers.get(b, 0) + self.head.get(b, 0) for b in self.bits}


def code_bits(block_type: str) -> int:
    """Bits of a weight's code, which the names of block types tell: 4 of Q4_K, 16 of BF16."""
    return int(re.findall(r"\d+", block_type)[0])


def work(tensors: Mapping[str, _Tensor]) -> Work:
    """The work of a model's tensors. The embedding of a token is one row, unless the same matrix gives the logits."""
    head_name = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    nbytes, layers, head = 0, Counter[int](), Counter[int]()
    for name, tensor in tensors.items():
        if len(tensor.shape) < 2 or (name == "token_embd.weight" and name != head_name):
            continue
        nbytes += tensor.nbytes
        (head if name == head_name else layers)[code_bits(tensor.type)] += tensor.shape[0] * tensor.shape[1]
    return Work(nbytes, layers, head)


@dataclass(frozen=True)
class Limits:
    """What the machine does at most with the model's threads.

    read_bandwidth: bytes per second from memory
    dot_peak: multiply-adds per second of byte dot products from L1, per bits of a code
    """

    read_bandwidth: float
    dot_peak: Mapping[int, float]

    def dot_seconds(self, multiply_adds: Mapping[int, int]) -> float | None:
        """Time that the dot products alone would take; None where some weights are not codes."""
        if not all(bits in self.dot_peak for bits in multiply_adds):
            return None
        return sum(n / self.dot_peak[bits] for bits, n in multiply_adds.items())


def machine_limits(threads: int, bits: Iterable[int]) -> Limits:
    """Measured now; about a second."""
    from edgeq.runtime.limits import dot_peak, read_bandwidth
    from edgeq.runtime.team import Team

    team = Team(threads)
    try:
        return Limits(read_bandwidth(team), {b: dot_peak(team, b) for b in bits if b <= 8})
    finally:
        team.close()


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` per cent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True)
class Result:
    """One test: its name, e.g. pp512 or tg128, the seconds of each repetition, and of each generated token."""

    test: str
    tokens: int
    seconds: list[float]
    token_seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second, the mean over repetitions."""
        return mean(self.tokens / s for s in self.seconds)

    @property
    def spread(self) -> float:
        """Standard deviation of the tokens per second."""
        return stdev(self.tokens / s for s in self.seconds) if len(self.seconds) > 1 else 0.0

    def figures(self, work: Work, limits: Limits) -> dict[str, float | None]:
        """The test against the machine's limits, from the median repetition; seconds of a token or until the first."""
        seconds = median(self.seconds)
        if self.token_seconds:
            read = work.nbytes * self.tokens / seconds
            latency = {f"token_seconds_p{p}": percentile(self.token_seconds, p) for p in (50, 95, 99)}
            return {"bytes_per_second": read, "of_read_bandwidth": read / limits.read_bandwidth, **latency}
        operations = work.multiply_adds(self.tokens)
        dots = limits.dot_seconds(operations)
        return {
            "multiply_adds_per_second": sum(operations.values()) / seconds,
            "of_dot_peak": None if dots is None else dots / seconds,
            "first_token_seconds": seconds,
        }


@click.command("bench", short_help="Measure speed.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", "prompts", type=click.IntRange(0), multiple=True, help="Prompt tokens.  [default: 512]")
@click.option("-n", "--generate", "texts", type=click.IntRange(0), multiple=True, help="New tokens.  [default: 128]")
@click.option("-r", "--repetitions", type=click.IntRange(1), default=5, show_default=True)
@click.option("-o", "--output", type=click.Choice(["md", "json"]), default="md", show_default=True)
@THREADS
def command(
    model: Path,
    prompts: tuple[int, ...],
    texts: tuple[int, ...],
    repetitions: int,
    output: str,
    threads: int | None,
) -> None:
    """Measure the speed of MODEL: taking a prompt (pp) and generating (tg), beside what this machine can do at most.

    -p and -n may be given several times; 0 leaves the test out.
    """
    tests = [("pp", n) for n in prompts or (512,) if n] + [("tg", n) for n in texts or (128,) if n]
    if not tests:
        raise UsageError("there is nothing to measure: give -p or -n a number above 0")
    need = max(n for _, n in tests)
    loading = {"context": need} | ({"threads": threads} if threads else {})
    with load_model(model, loading) as loaded:
        head, asked = describe(loaded), work(loaded.file.tensors)
        limits = machine_limits(loaded.session.threads, asked.bits)
        if output == "md":
            click.echo(_line([name for name, _, _ in COLUMNS]))
            click.echo("| " + " | ".join("-" * (w - right) + ":" * right for _, w, right in COLUMNS) + " |")
        results = []
        for kind, n in tests:
            results.append(measure(loaded, kind, n, repetitions))
            if output == "md":
                click.echo(
                    _line([*head.values(), results[-1].test, f"{results[-1].rate:.2f} ± {results[-1].spread:.2f}"])
                )
    if output == "json":
        click.echo(json.dumps([_row(head, r, asked, limits) for r in results], indent=2))
    else:
        click.echo("\n".join(["", *notes(results, asked, limits)]), err=True)


def describe(model: "Model") -> dict[str, str]:
    """What is the same in every row."""
    metadata = model.file.metadata
    kind = metadata.get("provenance", {}).get("recipe", "")
    return {
        "model": f"{metadata.get('architecture', '?')} {count(model.parameters)} {kind}".strip(),
        "size": binary_size(sum(tensor.nbytes for tensor in model.file.tensors.values())),
        "params": count(model.parameters),
        "backend": "CPU",
        "threads": str(model.session.threads),
    }


def measure(model: "Model", kind: str, n: int, repetitions: int) -> Result:
    """Time one test. A first run, which reads the file's pages in, does not count.

    pp: n tokens in one go. tg: n tokens one after another from an empty context. Which ids they are makes no difference
    to the time, as every weight is read for each.
    """
    session = model.session
    tokens = [i * 7919 % model.vocab_size for i in range(n)]
    steps = [tokens] if kind == "pp" else [[token] for token in tokens]
    seconds, token_seconds = [], []
    for repetition in range(repetitions + 1):
        session.rewind(0)
        warm_up = repetition == 0
        clock = [time.perf_counter()]
        for step in steps[:8] if warm_up else steps:
            session.eval(step)
            clock.append(time.perf_counter())
        if not warm_up:
            seconds.append(clock[-1] - clock[0])
            token_seconds += [after - before for before, after in pairwise(clock)]
    session.rewind(0)
    return Result(f"{kind}{n}", n, seconds, token_seconds if kind == "tg" else [])


def notes(results: Iterable[Result], asked: Work, limits: Limits) -> list[str]:
    """Lines for people: the machine's limits, and each test against them."""
    dots = ", ".join(f"{peak / 1e9:.0f} ({bits}-bit codes)" for bits, peak in limits.dot_peak.items())
    lines = [f"limits  {limits.read_bandwidth / 1e9:.1f} GB/s read" + (f", {dots} G multiply-adds/s" if dots else "")]
    for result in results:
        figures = result.figures(asked, limits)
        if result.token_seconds:
            p50, p95, p99 = (1e3 * (figures[f"token_seconds_p{p}"] or 0.0) for p in (50, 95, 99))
            rate, share = (figures["bytes_per_second"] or 0.0) / 1e9, figures["of_read_bandwidth"]
            tail = f"a token takes {p50:.2f} ms (p95 {p95:.2f}, p99 {p99:.2f})"
            text = f"{rate:.1f} GB/s"
        else:
            rate, share = (figures["multiply_adds_per_second"] or 0.0) / 1e9, figures["of_dot_peak"]
            tail = f"first token after {figures['first_token_seconds']:.3f} s"
            text = f"{rate:.1f} G multiply-adds/s"
        percent = "" if share is None else f", {100 * share:.0f} % of the limit"
        if share is not None and share > 1 and result.token_seconds:
            percent += " (weights come from the cache)"
        lines.append(f"{result.test:7} {text}{percent}; {tail}")
    return lines


def _row(head: Mapping[str, str], result: Result, asked: Work, limits: Limits) -> dict[str, Any]:
    """A test in JSON: seconds, bytes and multiply-adds, never rounded."""
    return {
        **head,
        "test": result.test,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_second": result.rate,
        "spread": result.spread,
        **result.figures(asked, limits),
        "limits": {"read_bandwidth": limits.read_bandwidth, "dot_peak": dict(limits.dot_peak)},
    }


def _line(cells: list[str]) -> str:
    """A row of the table, each cell as wide as its column."""
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, (_, width, right) in zip(cells, COLUMNS, strict=True)
    )
    return "| " + " | ".join(padded) + " |"
