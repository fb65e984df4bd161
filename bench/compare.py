"""edgeq beside llama.cpp: the same weights, the same bits, the same threads, in one run.

    python bench/compare.py model.eqf [model.eqf ...] --peer-python /path/to/python

Each engine is a resident process; they take turns (edgeq, llama.cpp, ...), the one that waits sleeps, and medians
are compared. The machine's limits are measured in the same run. The GGUF file for llama.cpp is written beside the model
(bench/export_gguf.py). --peer-python is a Python that has the `llama_cpp` package. Results are merged into
bench/results/<CPU>-<cores>-cores.csv and shown as a table; --table only shows it.

Tests: pp512 is a prompt of 512 tokens in one go, tg32 is 32 tokens one after the other, both from an empty context.
"""

import argparse
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

import export_gguf
import psutil
import results_table
from results_table import Row
from turns import Engine, EngineError

from edgeq.cli.bench import Limits, Work, work
from edgeq.container.reader import open_file
from edgeq.errors import EdgeqError

HERE = Path(__file__).resolve().parent
TEXT = (
    "A small boat left the harbour in the morning. The wind was mild, and the two friends on board talked about "
    "the island, the old lighthouse and what they would eat when they came back home in the evening."
)
PAUSE = 0.05  # seconds between turns, in which the other engine's threads fall asleep


def cpu_name() -> str:
    """The CPU's name as the system tells it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def cores() -> int:
    """Physical cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def default_results() -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    return HERE / "results" / f"{slug}-{cores()}-cores.csv"


def busy_seconds() -> float:
    """Processor seconds that the machine has spent on something; also those that the host took from a guest."""
    times = psutil.cpu_times()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user and nice already
    return sum(value for name, value in times._asdict().items() if name not in idle)


def turn(engine: Engine, tokens: list[int], batch: bool, threads: int) -> tuple[float, float]:
    """Seconds of a test, and the processors that something else kept busy meanwhile."""
    process = psutil.Process(engine.process.pid)
    time.sleep(PAUSE)
    before, own, began = busy_seconds(), sum(process.cpu_times()[:2]), time.perf_counter()
    seconds = engine.ask("seconds", tokens=tokens, batch=batch, threads=threads)
    other = busy_seconds() - before - (sum(process.cpu_times()[:2]) - own)
    return seconds, max(0.0, other / (time.perf_counter() - began))


class Pair:
    """Both engines with one model."""

    def __init__(self, model: Path, context: int, options: argparse.Namespace):
        gguf_file = (options.gguf or model.parent) / f"{model.stem}.gguf"
        if not gguf_file.exists() or gguf_file.stat().st_mtime < model.stat().st_mtime:
            print(f"writing {gguf_file}", file=sys.stderr)
            export_gguf.export(model, gguf_file, options.fallback)
        with open_file(model) as file:
            self.work: Work = work(file.tensors)
            targets = [export_gguf.target(t, True) for t in file.tensors.values() if len(t.shape) == 2]
            self.vocabulary = file.tensors["token_embd.weight"].shape[0]
        self.model, self.same_bits = model, not any(target.again for target in targets)
        self.edgeq = Engine([sys.executable, str(HERE / "engine_edgeq.py"), str(model), str(context)])
        self.peer = Engine([options.peer_python, str(HERE / "engine_llama.py"), str(gguf_file), str(context)])

    def agreement(self, threads: int, context: int) -> str:
        """Whether both engines compute the same model: how often they find the same token the likeliest."""
        tokens = self.edgeq.ask("tokens", text=TEXT)[:context]
        ours, theirs = (e.ask("likeliest", tokens=tokens, threads=threads) for e in (self.edgeq, self.peer))
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        return f"{self.model.stem}: the likeliest next token is the same at {same} of {len(tokens)} positions"

    def limits(self, threads: int) -> Limits:
        bits = [b for b in self.work.bits if b <= 8]
        found = self.edgeq.ask("limits", threads=threads, bits=bits)
        return Limits(found["read"], {int(b): peak for b, peak in found["dots"].items()})

    def compare(self, test: str, threads: int, repetitions: int, limits: Limits) -> Row:
        """One test, both engines in turns; a shorter run of each before warms up and does not count."""
        batch, count = test.startswith("pp"), int(test[2:])
        tokens = [i * 7919 % self.vocabulary for i in range(count)]
        engines = (self.edgeq, self.peer)
        for engine in engines:
            engine.ask("seconds", tokens=tokens[: 64 if batch else 4], batch=batch, threads=threads)
        turns = [[turn(engine, tokens, batch, threads) for engine in engines] for _ in range(repetitions)]
        ours, theirs = ([pair[i][0] for pair in turns] for i in range(2))
        return Row(
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=f"{cpu_name()}, {cores()} cores",
            isa=self.edgeq.hello["isa"],
            edgeq=self.edgeq.hello["version"],
            peer=f"llama.cpp (llama-cpp-python {self.peer.hello['version']})",
            model=self.model.stem,
            file_bytes=self.model.stat().st_size,
            same_bits=self.same_bits,
            test=test,
            threads=threads,
            edgeq_seconds=ours,
            peer_seconds=theirs,
            edgeq_other_cpus=mean(pair[0][1] for pair in turns),
            peer_other_cpus=mean(pair[1][1] for pair in turns),
            **results_table.rates(count, ours, theirs),
            **figures(self.work, limits, batch, count, median(ours)),
        )

    def close(self) -> None:
        self.edgeq.close()
        self.peer.close()


def figures(asked: Work, limits: Limits, batch: bool, count: int, seconds: float) -> dict[str, float | None]:
    """edgeq's rates against the limits. Of a prompt, bytes do not matter: weights are read once for many tokens."""
    operations = asked.multiply_adds(count) if batch else {b: count * n for b, n in asked.multiply_adds(1).items()}
    total, dots = sum(operations.values()), limits.dot_seconds(operations)
    read = None if batch else asked.nbytes * count / seconds
    return {
        "g_multiply_adds_per_second": total / seconds / 1e9,
        "dot_peak_g": None if dots is None else total / dots / 1e9,
        "of_dot_peak": None if dots is None else dots / seconds,
        "gb_per_second": None if read is None else read / 1e9,
        "read_bandwidth_gb": limits.read_bandwidth / 1e9,
        "of_read_bandwidth": None if read is None else read / limits.read_bandwidth,
    }


def measure(model: Path, options: argparse.Namespace) -> list[Row]:
    """Every test of one model."""
    context = max(int(test[2:]) for test in options.tests)
    pair = Pair(model, context, options)
    try:
        if options.agreement:
            print(pair.agreement(max(options.threads), context), file=sys.stderr)
        rows = []
        for threads in options.threads:
            limits = pair.limits(threads)
            rows += [pair.compare(test, threads, options.repetitions, limits) for test in options.tests]
        return rows
    finally:
        pair.close()


def test_name(text: str) -> str:
    if not re.fullmatch(r"(pp|tg)[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no test: give e.g. pp512 or tg32")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama_cpp")
    parser.add_argument("--tests", nargs="+", type=test_name, default=["pp512", "pp64", "tg32"])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, cores()}))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--gguf", type=Path, help="folder of the GGUF files, instead of the model's")
    parser.add_argument("--fallback", action="store_true", help="where GGUF cannot hold the bits, give llama.cpp more")
    parser.add_argument("--agreement", action="store_true", help="also check that both compute the same")
    parser.add_argument("--results", type=Path, default=default_results())
    parser.add_argument("--table", action="store_true", help="only show the results as a table")
    options = parser.parse_args()
    try:
        rows = [] if options.table else [row for model in options.models for row in measure(model, options)]
    except (EdgeqError, EngineError) as error:
        sys.exit(f"{error}")
    cells = results_table.merged(options.results, rows)
    if rows:
        results_table.write(options.results, cells)
    keys = {row.key for row in rows}
    shown = [c for c in cells if options.table or (c["model"], c["test"], c["threads"]) in keys]
    print(results_table.markdown(shown))
    for row in rows:
        if max(row.edgeq_other_cpus, row.peer_other_cpus) > 0.1:
            print(
                f"{row.model} {row.test}, {row.threads} threads: other programs kept {row.edgeq_other_cpus:.2f} "
                f"processors busy beside edgeq, {row.peer_other_cpus:.2f} beside llama.cpp",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
