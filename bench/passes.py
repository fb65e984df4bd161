"""What a pass of a few tokens costs beside a pass of one: milliseconds, and how many times as long.

    python bench/passes.py model.eqf [model.eqf ...] [--tokens 1 2 4 8 16] [--threads 1] [--beside CHECKOUT]

A pass computes so many tokens after an empty context, with the logits of the last one. With --beside, another checkout
of edgeq takes turns with this one: each is a resident process, asked in turns, and medians are shown.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import script
from machine import machine
from pair import PAUSE
from table_file import table
from turns import BATCH, Engine

from edgeq.container.reader import open_file

Seconds = dict[int, list[float]]  # by the tokens of a pass


def engine(checkout: Path, model: Path, context: int) -> Engine:
    command = [sys.executable, str(checkout / "bench" / "engine_edgeq.py"), str(model), str(context)]
    return Engine(["env", f"PYTHONPATH={checkout}", *command])


def measure(engines: dict[str, Engine], counts: list[int], threads: int, repetitions: int) -> dict[str, Seconds]:
    """Seconds of every pass of each engine, in turns; one more warms up and does not count."""
    found: dict[str, Seconds] = {name: {count: [] for count in counts} for name in engines}
    for _ in range(repetitions + 1):
        for count in counts:
            for name, asked in engines.items():
                time.sleep(PAUSE)
                tokens = list(range(1, count + 1))
                seconds = asked.ask("seconds", before=[], tokens=tokens, batch=True, threads=threads)
                found[name][count].append(seconds)
    return {name: {count: each[1:] for count, each in passes.items()} for name, passes in found.items()}


def cells(passes: Seconds) -> list[str]:
    """Median milliseconds, and in brackets as a multiple of the first."""
    middle = [median(seconds) * 1e3 for seconds in passes.values()]
    return [f"{middle[0]:.1f}", *(f"{each:.1f} ({each / middle[0]:.2f})" for each in middle[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=script.file, metavar="model.eqf")
    parser.add_argument(
        "--tokens", nargs="+", type=script.count, default=[1, 2, 4, 8, 16], help="of a pass  [default: 1 2 4 8 16]"
    )
    parser.add_argument("--threads", type=script.count, default=1)
    parser.add_argument("--repetitions", type=script.count, default=5, help="turns of each  [default: 5]")
    parser.add_argument("--beside", type=script.folder, metavar="CHECKOUT", help="of edgeq, the commit before, say")
    options = parser.parse_args()
    if max(options.tokens) > BATCH:
        parser.error(f"--tokens must be at most {BATCH}, a batch")
    checkouts = {"this": Path(__file__).resolve().parent.parent}
    if options.beside:
        checkouts = {"beside": options.beside.resolve(), **checkouts}
    rows = []
    for model in options.models:
        open_file(model).close()
        engines: dict[str, Engine] = {}
        try:
            for name, checkout in checkouts.items():
                engines[name] = engine(checkout, model, max(options.tokens))
            found = measure(engines, options.tokens, options.threads, options.repetitions)
        finally:
            for each in engines.values():
                each.close()
        rows += [[model.stem, name, *cells(passes)] for name, passes in found.items()]
    print(f"{machine()}; threads: {options.threads}; milliseconds (times a pass of {options.tokens[0]})")
    headings = [("model", False), ("edgeq", False), *((str(count), True) for count in options.tokens)]
    print(table(headings, rows))


if __name__ == "__main__":
    script.run(main)
