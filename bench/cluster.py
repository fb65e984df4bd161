"""Workers of a Ray cluster beside processes without Ray: rows/s of each. CSV on stdout.

    python bench/cluster.py model.eqf --workers 1 2 --threads 1

A local cluster answers a file of requests by `edgeq.ray.batch`; as many processes, each with its share of the rows, do
what `edgeq batch` does; in turns. A worker's time is counted from when its model is loaded to the last answer of all,
a process' from when its model is loaded to its last answer: how both start is left out, how they end is not; and so is
the processors' time that their processes take, which says more where the machine is not theirs alone. Prompts are token
ids that do not begin alike. Answers must be the same bytes.
"""

import argparse
import asyncio
import csv
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import script

import edgeq
from edgeq.store import model_names

COLUMNS = ("model", "threads", "turn", "engine", "workers", "rows", "rows_per_second_of_each", "cpu_seconds_per_row")


def write_rows(path: Path, rows: Sequence[int], prompt: int, tokens: int) -> Path:
    """Requests for so many tokens each, after prompts of so many."""
    lines = []
    for number in rows:
        ids = [random.Random(number).randint(300, 1500) for _ in range(prompt)]  # ordinary tokens in most vocabularies
        body = {"prompt": ids, "max_tokens": tokens}
        lines.append(json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}))
    path.write_text("\n".join(lines) + "\n")
    return path


def alone(model: str, threads: int, at_once: int, requests: Path, answers: Path) -> tuple[float, float]:
    """Seconds, and those of processors, of the process in which this runs."""
    from edgeq.serve.app import application
    from edgeq.serve.batch_files import answer_file
    from edgeq.serve.guard import Rules
    from edgeq.serve.offline import EVERY
    from edgeq.serve.roster import Roster

    roster = Roster({model_names.called(model): lambda say: edgeq.load(model, threads=threads)}, EVERY, at_once)
    roster.load()
    began, used = time.time(), time.process_time()
    asyncio.run(answer_file(application(roster, Rules()), requests, answers, "", at_once))
    took = time.time() - began, time.process_time() - used
    roster.close()
    return took


def processes(options: argparse.Namespace, number: int, folder: Path) -> tuple[float, float, bytes]:
    """What so many processes take, added up, see `alone`, and their answers."""
    rows = [range(i, number * options.rows, number) for i in range(number)]
    asked = [write_rows(folder / f"in{i}", share, options.prompt, options.tokens) for i, share in enumerate(rows)]
    answers = [path.with_name(f"out{i}") for i, path in enumerate(asked)]
    given = ([same] * number for same in (str(options.model), options.threads, options.at_once))
    with ProcessPoolExecutor(number, get_context("spawn")) as pool:
        seconds, used = map(sum, zip(*pool.map(alone, *given, asked, answers), strict=True))
    lines = zip(*(path.read_bytes().splitlines() for path in answers), strict=True)
    return seconds, used, b"\n".join(line for some in lines for line in some) + b"\n"


def cluster(options: argparse.Namespace, number: int, folder: Path) -> tuple[float, float, bytes]:
    """As `processes`, of so many workers of a cluster."""
    from edgeq.ray import Workers, batch, batching

    notes = folder / "notes"
    notes.mkdir()

    class Rows(batching.Rows):
        """Says when its model is loaded, and what it has used of the processors then and after each answer."""

        def __init__(self, workers: Workers) -> None:
            super().__init__(workers)
            self.begun, self.used = time.time(), time.process_time()

        async def answer(self, line: bytes) -> tuple[bytes, int]:
            answer = await super().answer(line)
            (notes / f"{os.getpid()}").write_text(f"{self.begun} {time.process_time() - self.used}")
            return answer

    plain, batching.Rows = batching.Rows, Rows
    try:
        asked = write_rows(folder / "in", range(number * options.rows), options.prompt, options.tokens)
        batch(Workers(str(options.model), number, options.threads, options.at_once), asked, folder / "out")
        ended = time.time()
    finally:
        batching.Rows = plain
    noted = [[float(word) for word in path.read_text().split()] for path in notes.iterdir()]
    return sum(ended - begun for begun, _ in noted), sum(used for _, used in noted), (folder / "out").read_bytes()


def measure(options: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Rows of the table, see COLUMNS."""
    for turn in range(options.repetitions):
        for number in options.workers:
            told = []
            for engine in (processes, cluster):
                with tempfile.TemporaryDirectory() as folder:
                    seconds, used, answers = engine(options, number, Path(folder))
                told.append(answers)
                rows = number * options.rows
                what = options.model.name, options.threads, turn, engine.__name__, number, rows
                yield *what, f"{rows / seconds:.3f}", f"{used / rows:.4f}"
            assert told[0] == told[1], "the cluster answers other bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file, metavar="model.eqf")
    parser.add_argument("--workers", nargs="+", type=script.count, default=[1, 2], help="[default: 1 2]")
    parser.add_argument("--threads", type=script.count, default=1, help="of each worker  [default: 1]")
    parser.add_argument("--at-once", type=script.count, default=32, help="rows that each computes  [default: 32]")
    parser.add_argument("--rows", type=script.count, default=200, help="for each worker  [default: 200]")
    parser.add_argument("--prompt", type=script.count, default=100, help="tokens in  [default: 100]")
    parser.add_argument("--tokens", type=script.count, default=64, help="tokens out  [default: 64]")
    parser.add_argument("--repetitions", type=script.count, default=3, help="turns of each  [default: 3]")
    options = parser.parse_args()
    import ray

    cores = max(options.workers) * options.threads
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="warning")
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for row in measure(options):
        rows.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    script.run(main)
