"""`edgeq bench`: speed of prompts and of generation, in the columns of llama.cpp's llama-bench."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class Result:
    """One test: its name, e.g. pp512 or tg128, and the seconds of each repetition."""

    test: str
    tokens: int
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Tokens per second, the mean over repetitions."""
        return mean(self.tokens / s for s in self.seconds)

    @property
    def spread(self) -> float:
        """Standard deviation of the tokens per second."""
        return stdev(self.tokens / s for s in self.seconds) if len(self.seconds) > 1 else 0.0


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
    """Measure the speed of MODEL: taking a prompt (pp) and generating (tg).

    -p and -n may be given several times; 0 leaves the test out.
    """
    tests = [("pp", n) for n in prompts or (512,) if n] + [("tg", n) for n in texts or (128,) if n]
    if not tests:
        raise UsageError("there is nothing to measure: give -p or -n a number above 0")
    need = max(n for _, n in tests)
    loading = {"context": need} | ({"threads": threads} if threads else {})
    with load_model(model, loading) as loaded:
        head = describe(loaded)
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
        rows = [head | asdict(r) | {"tokens_per_second": r.rate, "spread": r.spread} for r in results]
        click.echo(json.dumps(rows, indent=2))


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
    seconds = []
    for repetition in range(repetitions + 1):
        session.rewind(0)
        warm_up = repetition == 0
        began = time.perf_counter()
        if kind == "pp":
            session.eval(tokens)
        else:
            for token in tokens[: min(n, 8)] if warm_up else tokens:
                session.eval([token])
        if not warm_up:
            seconds.append(time.perf_counter() - began)
    session.rewind(0)
    return Result(f"{kind}{n}", n, seconds)


def _line(cells: list[str]) -> str:
    """A row of the table, each cell as wide as its column."""
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, (_, width, right) in zip(cells, COLUMNS, strict=True)
    )
    return "| " + " | ".join(padded) + " |"
