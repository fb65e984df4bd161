"""edgeq beside llama.cpp: the same weights, the same bits, the same threads, in one run.

    python bench/compare.py model.eqf [model.eqf ...] --peer-python /path/to/python

Each engine is a resident process; they take turns (edgeq, llama.cpp, ...), the one that waits sleeps, and medians
are compared. The machine's limits are measured before, between and after the turns. The GGUF file for llama.cpp is
written beside the model, as model.peer.gguf. --peer-python is a Python that has the `llama_cpp` package. Results are
merged into bench/results/<CPU>-<cores>-cores.csv and shown as a table; --table only shows it.

Tests: pp512 is a prompt of 512 tokens, in batches of 512; tg128 is 128 tokens one after the other, both from an empty
context. tg128@d4096 is 128 tokens from a context 4096 tokens deep, which is filled once and rewound to.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

import pair as sides
import results_table
import script
from machine import cores, machine, results_file
from pair import Pair, turn
from results_table import Row
from table_file import keep_each, key_of, rows_of

from edgeq.cli.roofline import Case, Limits, figures, middle
from edgeq.errors import UsageError

TESTS = ["pp64", "pp512", "pp2048", "tg128", "tg128@d4096"]


def compare(pair: Pair, case: Case, threads: int, repetitions: int) -> Row:
    """One test, both engines in turns, the limits around each; a shorter run of each warms up and does not count."""
    pair.warm_up(case, threads)
    request = pair.request(case, threads)
    limits, turns = [pair.limits(threads)], []
    for _ in range(repetitions):
        turns.append([turn(engine, request) for engine in pair.engines])
        limits.append(pair.limits(threads))
    ours, theirs = ([both[i][0] for both in turns] for i in range(2))
    return Row(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        isa=pair.edgeq.hello["isa"],
        edgeq=pair.edgeq.hello["version"],
        peer=f"llama.cpp (llama-cpp-python {pair.peer.hello['version']})",
        model=pair.model.stem,
        file_bytes=pair.model.stat().st_size,
        same_bits=pair.same_bits,
        test=str(case),
        threads=threads,
        edgeq_seconds=ours,
        peer_seconds=theirs,
        edgeq_other_cpus=mean(both[0][1] for both in turns),
        peer_other_cpus=mean(both[1][1] for both in turns),
        **results_table.rates(case.tokens, ours, theirs),
        **columns(pair, case, middle(limits), median(ours), median(theirs)),
    )


def columns(pair: Pair, case: Case, limits: Limits, ours: float, theirs: float) -> dict[str, float | None]:
    """Both engines' rates, and edgeq's shares of the limits, in units of 1e9."""
    found = figures(case, ours, pair.work, limits)
    read = pair.work.bytes_read(case)
    peer_read = None if read is None else read + case.tokens * (pair.peer_nbytes - pair.work.nbytes)
    return {
        "g_multiply_adds_per_second": _giga(found["multiply_adds_per_second"]),
        "dot_peak_g": _giga(found["dot_peak"]),
        "of_dot_peak": found["of_dot_peak"],
        "gb_per_second": _giga(found["bytes_per_second"]),
        "read_bandwidth_gb": limits.read_bandwidth / 1e9,
        "of_read_bandwidth": found["of_read_bandwidth"],
        "mb_per_token": None if read is None else read / case.tokens / 1e6,
        "peer_gb_per_second": None if peer_read is None else peer_read / theirs / 1e9,
    }


def _giga(value: float | None) -> float | None:
    return None if value is None else value / 1e9


def measure(model: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Every test of one model."""
    context = max(case.positions for case in options.tests)
    pair = Pair(model, context, options)
    try:
        if options.agreement:
            print(pair.agreement(max(options.threads), context), file=sys.stderr)
        for threads in options.threads:
            for case in options.tests:
                yield compare(pair, case, threads, options.repetitions)
    finally:
        pair.close()


def case(text: str) -> Case:
    """A test's name, for argparse."""
    try:
        return Case.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=script.file, metavar="model.eqf")
    sides.arguments(parser)
    parser.add_argument(
        "--tests", nargs="+", type=case, default=[case(t) for t in TESTS], help=f"[default: {' '.join(TESTS)}]"
    )
    parser.add_argument(
        "--threads", nargs="+", type=script.count, default=sorted({1, cores()}), help="[default: 1 and all]"
    )
    parser.add_argument("--repetitions", type=script.count, default=5, help="turns of each engine  [default: 5]")
    parser.add_argument("--agreement", action="store_true", help="also check that both compute the same")
    parser.add_argument("--results", type=Path, default=results_file(), help="CSV file that rows are merged into")
    parser.add_argument("--table", action="store_true", help="only show the results as a table")
    options = parser.parse_args()
    if not options.models and not options.table:
        parser.error("give a model, or --table")
    if options.table:
        if not options.results.exists():
            parser.error(f"{options.results}: no such file: measure a model first, or give --results")
        print(results_table.markdown(rows_of(options.results, Row)))
        return
    for model in options.models:
        sides.gguf_file(model, options)  # of all models, before any is measured: what cannot be compared is told now
    rows = keep_each(options.results, Row, (row for model in options.models for row in measure(model, options)))
    keys = {row.key for row in rows}
    print(results_table.markdown(c for c in rows_of(options.results, Row) if key_of(c, Row) in keys))
    for row in rows:
        if max(row.edgeq_other_cpus, row.peer_other_cpus) > 0.1:
            print(
                f"{row.model} {row.test}, {row.threads} threads: other programs kept {row.edgeq_other_cpus:.2f} "
                f"processors busy beside edgeq, {row.peer_other_cpus:.2f} beside llama.cpp",
                file=sys.stderr,
            )


if __name__ == "__main__":
    script.run(main)
