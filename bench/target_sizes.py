"""Files of many sizes whose types are chosen: how near each is to its size, and its loss to what was predicted.

    python bench/target_sizes.py checkpoint [--calibration model.calib] [--bits 2.9,3.4,4,4.6,5.2,5.9,6.6]
    python bench/target_sizes.py checkpoint --method importance     # minutes, where feedback takes hours

Loss is the divergence on the calibration's text that is kept back, as `edgeq convert` tells it. A row per size goes to
bench/results; the table has all rows there of this model.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import script
from machine import results_file
from table_file import Measured, keep_each, number, rows_of, table

from edgeq.conversion.calibrating import calibrate
from edgeq.conversion.conversion import convert
from edgeq.errors import UsageError
from edgeq.quantize.calibrated import Request
from edgeq.quantize.imatrix import read_calibration
from edgeq.quantize.requantize import FEEDBACK, METHODS

BITS = (2.9, 3.4, 4.0, 4.6, 5.2, 5.9, 6.6)


@dataclass
class Sized(Measured):
    """One file. `below`: how much of the size asked for it leaves, in per cent; divergences in nats."""

    KEY = ("model", "bits_asked")

    model: str
    bits_asked: float
    bits: float
    nbytes: int
    below: float
    predicted: float
    measured: float
    error: float
    by: float  # measured over predicted
    same_top: float
    perplexity: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--calibration", type=Path, help="default: made with the texts that come with edgeq")
    parser.add_argument("--bits", default=",".join(map(str, BITS)), help="bits per weight")
    parser.add_argument("--method", choices=METHODS, default=FEEDBACK, help="how they are quantized")
    parser.add_argument("--threads", type=script.count)
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    options.results = options.results or results_file("target-sizes")
    try:
        wanted = [float(one) for one in options.bits.split(",")]
    except ValueError:
        raise UsageError(f"{options.bits!r} are no bits per weight: give them as 2.6,4.4") from None
    keep_each(options.results, Sized, measured(options, wanted))
    rows = [row for row in rows_of(options.results, Sized) if row["model"] == called(options)]
    rows.sort(key=lambda row: float(row["bits_asked"]))
    names = ("bits_asked", "bits", "nbytes", "below", "predicted", "measured", "error", "by", "same_top")
    print(table([(name, True) for name in names], [[number(row[name]) for name in names] for row in rows]))


def measured(options: argparse.Namespace, wanted: list[float]) -> Iterator[Sized]:
    """A row for each size. Types are chosen for whole weights: vectors, which are few, count too."""
    with tempfile.TemporaryDirectory() as folder:
        known, made = options.calibration, Path(folder, "made.eqf")
        if known is None:
            known = Path(folder, "model.calib")
            calibrate(options.checkpoint, known, threads=options.threads)
        calibration = read_calibration(known)
        for bits in wanted:
            request = Request(calibration, options.method, bits=bits)
            report = convert(options.checkpoint, made, threads=options.threads, request=request)
            assert report.loss is not None
            yield Sized(
                called(options),
                bits,
                report.bits_per_weight,
                report.nbytes,
                100 * (1 - report.bits_per_weight / bits),
                report.predicted,
                report.loss.divergence,
                report.loss.error,
                report.loss.divergence / report.predicted,
                100 * report.loss.same_top,
                report.loss.perplexity,
                report.seconds,
            )


def called(options: argparse.Namespace) -> str:
    """The model, and the method where it is not the usual one."""
    name: str = options.checkpoint.name
    return name if options.method == FEEDBACK else f"{name}, {options.method}"


if __name__ == "__main__":
    script.run(main)
