"""Generation while other programs keep every core busy: how much edgeq and llama.cpp slow down.

    python bench/under_load.py model.eqf --peer-python /path/to/python

The load is a Python loop per core. Engines take turns without and with it; medians are compared. An engine whose
threads spin while they wait for each other loses more than its share of the cores. Rows are merged into
bench/results/under-load-<CPU>-<cores>-cores.csv.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import ClassVar, Self

import pair as sides
import script
from compare import case
from machine import cores, machine, results_file
from pair import Pair, turn
from table_file import Measured, keep_each, number, table

from edgeq.cli.roofline import Case

SETTLE = 0.3  # seconds until the load runs


@dataclass
class LoadRow(Measured):
    """Tokens per second from median seconds, alone and under load; `slowdown` is alone / loaded.

    seconds_*: of each repetition
    """

    KEY: ClassVar = ("model", "test", "threads", "load", "engine")

    date: str
    machine: str
    model: str
    test: str
    threads: int
    load: int
    engine: str
    seconds_alone: list[float]
    seconds_loaded: list[float]
    alone: float
    loaded: float
    slowdown: float


class Load:
    """`processes` other programs that never rest, while the `with` block runs."""

    def __init__(self, processes: int):
        self.processes = processes

    def __enter__(self) -> Self:
        spin = [sys.executable, "-S", "-c", "while True: pass"]
        self.children = [subprocess.Popen(spin, stderr=subprocess.DEVNULL) for _ in range(self.processes)]
        time.sleep(SETTLE if self.children else 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children:
            child.kill()
            child.wait()


def measure(model: Path, options: argparse.Namespace) -> Iterator[LoadRow]:
    """One model, both engines."""
    pair = Pair(model, options.test.positions, options)
    try:
        yield from compare(pair, options.test, options.threads, options.load, options.repetitions)
    finally:
        pair.close()


def compare(pair: Pair, test: Case, threads: int, load: int, repetitions: int) -> list[LoadRow]:
    """One test, both engines, without and with load, in turns."""
    pair.warm_up(test, threads)
    request = pair.request(test, threads)
    seconds: dict[tuple[int, int], list[float]] = {(engine, busy): [] for engine in (0, 1) for busy in (0, load)}
    for _ in range(repetitions):
        for busy in (0, load):
            with Load(busy):
                for i, engine in enumerate(pair.engines):
                    seconds[i, busy].append(turn(engine, request)[0])
    return [row(pair, test, threads, load, name, seconds[i, 0], seconds[i, load]) for i, name in enumerate(NAMES)]


NAMES = ("edgeq", "llama.cpp")


def row(
    pair: Pair, test: Case, threads: int, load: int, engine: str, alone: list[float], loaded: list[float]
) -> LoadRow:
    return LoadRow(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        model=pair.model.stem,
        test=str(test),
        threads=threads,
        load=load,
        engine=engine,
        seconds_alone=alone,
        seconds_loaded=loaded,
        alone=test.tokens / median(alone),
        loaded=test.tokens / median(loaded),
        slowdown=median(loaded) / median(alone),
    )


HEADINGS = (
    ("model", False),
    ("test", False),
    ("threads", True),
    ("busy loops", True),
    ("engine", False),
    ("t/s alone", True),
    ("t/s loaded", True),
    ("times slower", True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=script.file, metavar="model.eqf")
    sides.arguments(parser)
    parser.add_argument("--test", type=case, default=case("tg16"), help="[default: tg16]")
    parser.add_argument("--threads", type=script.count, default=cores(), help="of each engine  [default: all cores]")
    parser.add_argument("--load", type=script.count, default=cores(), help="busy loops  [default: one per core]")
    parser.add_argument("--repetitions", type=script.count, default=5, help="turns of each engine  [default: 5]")
    parser.add_argument("--results", type=Path, default=results_file("under-load"), help="CSV file to merge rows into")
    options = parser.parse_args()
    for model in options.models:
        sides.gguf_file(model, options)  # of all models, before any is measured
    rows = keep_each(options.results, LoadRow, (row for model in options.models for row in measure(model, options)))
    cells = [
        (
            r.model,
            r.test,
            str(r.threads),
            str(r.load),
            r.engine,
            number(f"{r.alone:.6g}"),
            number(f"{r.loaded:.6g}"),
            f"{r.slowdown:.2f}",
        )
        for r in rows
    ]
    print(table(HEADINGS, cells))


if __name__ == "__main__":
    script.run(main)
