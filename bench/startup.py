"""Wall time of fresh processes: from the shell's prompt to the first token. Linux for the runs from disk.

    python bench/startup.py model.eqf --peer-python /path/to/python

Medians of --repetitions processes each, in turns, their files in the page cache (they are read once before). One more
row is measured with the model's pages dropped from the cache, and one with an empty folder of compiled kernels, as the
very first run of a machine has it. `numba` and `numpy` tell whether the process imports them (python -X importtime).

edgeq's `run` also reads its tokenizer and prints text; "ids" rows load the model, take --tokens ids and find one token,
in edgeq and in llama.cpp (through its Python package, as GGUF) alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import ClassVar

import pair as sides
import script
from machine import cores, machine, results_file
from pair import HERE, TEXT, gguf_file
from table_file import Measured, keep_each, table
from turns import wall

from edgeq.container.reader import open_file
from edgeq.text.tokenizer import load_tokenizer

CONTEXT = 64


@dataclass
class StartRow(Measured):
    """seconds: of each process; imports: which of numba and numpy it imports, empty if not known."""

    KEY: ClassVar = ("model", "what", "threads")

    date: str
    machine: str
    model: str
    what: str
    threads: int
    seconds: list[float]
    median_seconds: float
    imports: str


def imported(command: Sequence[str], extra: Mapping[str, str]) -> str:
    """Which of numba and numpy a Python command imports."""
    timed = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(timed, env=os.environ | extra, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return modules(done.stderr)


def modules(importtime: str) -> str:
    """From what -X importtime prints: "numpy", "numba numpy" or "neither"."""
    names = {line.rsplit("|", 1)[-1].strip() for line in importtime.splitlines() if line.startswith("import time:")}
    return " ".join(sorted(names & {"numba", "numpy"})) or "neither"


def prompt_of(model: Path, tokens: int) -> str:
    """Words that the model's tokenizer makes `tokens` tokens of, or a few more."""
    with open_file(model) as file:
        tokenizer = load_tokenizer({name: file.asset(name) for name in file.assets})
    words = (TEXT + " ").split(" ") * (tokens // 8 + 1)
    return next(text for n in range(1, len(words)) if len(tokenizer.encode(text := " ".join(words[:n]))) >= tokens)


def read_in(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def drop(path: Path) -> None:
    """Ask the system to forget a file's pages."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def commands(model: Path, gguf: Path, prompt: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """What is measured with everything in the page cache."""
    python, threads, ids = sys.executable, str(options.threads), str(options.tokens)
    run = [python, "-m", "edgeq", "run", str(model), prompt, "--raw", "-n", "1", "-t", threads, "-c", str(CONTEXT)]
    ours, theirs = str(HERE / "engine_edgeq.py"), str(HERE / "engine_llama.py")
    return {
        "python -c pass": [python, "-c", "pass"],
        "import edgeq": [python, "-c", "import edgeq"],
        "edgeq --help": [python, "-m", "edgeq", "--help"],
        f"edgeq run, {options.tokens} + 1 tokens": run,
        f"edgeq, {options.tokens} ids + 1": [python, ours, str(model), str(CONTEXT), "--once", ids, threads],
        f"llama.cpp, {options.tokens} ids + 1": [
            options.peer_python,
            theirs,
            str(gguf),
            str(CONTEXT),
            "--once",
            ids,
            threads,
        ],
    }


def measure(model: Path, options: argparse.Namespace) -> Iterator[StartRow]:
    def row(what: str, times: list[float], imports: str = "") -> StartRow:
        return StartRow(
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=machine(),
            model=model.stem,
            what=what,
            threads=options.threads,
            seconds=times,
            median_seconds=median(times),
            imports=imports,
        )

    gguf = gguf_file(model, options)
    wanted = commands(model, gguf, prompt_of(model, options.tokens), options)
    run = wanted[f"edgeq run, {options.tokens} + 1 tokens"]
    wall(run)  # compiles what is missing
    for path in (model, gguf):
        read_in(path)
    seconds: dict[str, list[float]] = {what: [] for what in wanted}
    for _ in range(options.repetitions):
        for what, command in wanted.items():
            seconds[what].append(wall(command))
    for what, command in wanted.items():
        yield row(what, seconds[what], imported(command, {}))
    if hasattr(os, "posix_fadvise"):
        for engine, path in (("edgeq", model), ("llama.cpp", gguf)):
            what = f"{engine}, {options.tokens} ids + 1"
            cold = []
            for _ in range(options.repetitions):
                drop(path)
                cold.append(wall(wanted[what]))
            yield row(f"{what}, file not in the page cache", cold)
    with tempfile.TemporaryDirectory() as empty:
        first = wall(run, os.environ | {"EDGEQ_CACHE": empty})
    with tempfile.TemporaryDirectory() as empty:
        imports = imported(run, {"EDGEQ_CACHE": empty})
    yield row(f"edgeq run, {options.tokens} + 1 tokens, nothing compiled yet", [first], imports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file, metavar="model.eqf")
    sides.arguments(parser)
    parser.add_argument("--tokens", type=script.count, default=16, help="of the prompt  [default: 16]")
    parser.add_argument("--threads", type=script.count, default=cores(), help="[default: all cores]")
    parser.add_argument("--repetitions", type=script.count, default=5, help="processes of each kind  [default: 5]")
    parser.add_argument("--results", type=Path, default=results_file("startup"), help="CSV file to merge rows into")
    options = parser.parse_args()
    if options.tokens >= CONTEXT:
        parser.error(f"--tokens must lie between 1 and {CONTEXT - 1}")
    rows = keep_each(options.results, StartRow, measure(options.model, options))
    headings = (("process", False), ("seconds", True), ("processes", True), ("imports", False))
    print(table(headings, [(r.what, f"{r.median_seconds:.3f}", str(len(r.seconds)), r.imports) for r in rows]))


if __name__ == "__main__":
    script.run(main)
