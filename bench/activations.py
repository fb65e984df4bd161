"""Eight bits of weights and activations, in all the ways that guides name: what each loses, on one model.

    python bench/activations.py model-F32.eqf --text calibration.txt --held other.txt

`model-F32.eqf` is what `edgeq convert checkpoint --type F32` makes. A way is how weights share scales (a group of 32
columns, Q8_0; a row, I8_R; simulated: the whole matrix), and what activations get: nothing (weights alone are rounded),
a scale per group of 32 or per token when they are there (dynamic), or one per matrix found before (static, by the
method named). SmoothQuant's scales are folded into what comes before, with the exponent named. Embedding and head are
Q8_0 throughout; "mixed" is the recipe I8_R, which has Q8_0 also where outliers cannot be folded away. Loss is the
divergence of the model's results from the float model's, on the held-out text. A row per way goes to bench/results; the
table has all rows there of this model.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import script
from machine import results_file
from table_file import Measured, keep_each, number, rows_of, table

from edgeq.blocks.reference import decode
from edgeq.container.header import TensorInfo
from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.conversion.calibrating import corpora, sequences_of
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize import collect
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.equalize import smoothed
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.recipes import recipe
from edgeq.quantize.requantize import PER_ROW_SMOOTHING
from edgeq.quantize.simulated import simulate
from edgeq.quantize.static_ranges import METHODS, scale
from edgeq.quantize.static_scales import set_scales

KEPT = {"token_embd.weight", "output.weight"}
SMOOTHING = (0.5, 0.75)


@dataclass
class Way(Measured):
    """One way. `by`: its divergence over that of Q8_0."""

    KEY = ("model", "way")

    model: str
    way: str
    divergence: float
    error: float
    by: float
    same_top: float
    perplexity: float
    positions: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file, help="an .eqf file of F32 weights")
    parser.add_argument("--text", type=script.file, required=True, help="text to calibrate on")
    parser.add_argument("--held", type=script.file, required=True, help="other text, to measure on")
    parser.add_argument("--tokens", type=script.count, default=8192, help="to calibrate on [default: 8192]")
    parser.add_argument("--positions", type=script.count, default=1024, help="to measure at [default: 1024]")
    parser.add_argument("--threads", type=script.count, default=1)
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    options.results = options.results or results_file("activations")
    with open_file(options.model) as file, tempfile.TemporaryDirectory() as folder:
        keep_each(options.results, Way, measured(file, Path(folder), options))
    found = [row for row in rows_of(options.results, Way) if row["model"] == options.model.stem]
    columns = ["divergence", "error", "by", "same_top", "perplexity"]
    rows = [[row["way"], *(number(row[name]) for name in columns)] for row in found]
    print(table([("way", False), *((name, True) for name in columns)], rows))


def measured(file: File, folder: Path, options: argparse.Namespace) -> Iterator[Way]:
    """Every way in turn."""
    own = sequences_of(file, str(options.model), corpora([options.text]), tokens=options.tokens, length=512)
    held = sequences_of(file, str(options.model), corpora([options.held]), tokens=4 * options.positions, length=512)
    probe = Probe(file, [np.array(one.tokens, np.int32) for one in held], options.threads, options.positions)
    base = 0.0

    def way(name: str, path: Path) -> Way:
        nonlocal base
        with open_file(path) as made:
            loss = probe.loss(made)
        path.unlink()
        base = base or loss.divergence
        by = loss.divergence / base
        top, perplexity = 100 * loss.same_top, loss.perplexity
        return Way(options.model.stem, name, loss.divergence, loss.error, by, top, perplexity, probe.positions)

    out = folder / "way.eqf"
    encoded(file, out, "Q8_0", options.threads)
    yield way("Q8_0, dynamic per group", out)
    for kind in ("INT8_TENSOR", "INT8_TENSOR_ASYM", "INT8_ROW", "INT8_ROW_ASYM"):
        simulate(file, out, kind, options.threads)
        yield way(f"{kind} simulated, weights alone", out)
    model = architecture(file.metadata["config"], file.path)
    seen = collect.calibrate(file, own, threads=options.threads)
    matrices = {name for name in seen.matrices if name in file.tensors and name not in KEPT}

    def maxima(name: str) -> np.ndarray | None:
        return seen.sketch(name).channel_maxima if name in seen.matrices else None

    mixed = smoothed(file, model, maxima, matrices, PER_ROW_SMOOTHING)
    encoded(mixed, out, "I8_R", options.threads, mixed=True)
    yield way(f"I8_R, mixed, smoothed {PER_ROW_SMOOTHING}, dynamic per token", out)
    for alpha in (None, *SMOOTHING):
        form = file if alpha is None else smoothed(file, model, maxima, matrices, alpha)
        label = "" if alpha is None else f", smoothed {alpha}"
        if alpha is not None:
            encoded(form, out, "Q8_0", options.threads)
            yield way(f"Q8_0{label}, dynamic per group", out)
        encoded(form, out, "I8_R", options.threads)
        yield way(f"I8_R{label}, dynamic per token", out)
        read = seen if alpha is None else collect.calibrate(form, own, threads=options.threads)
        for method in METHODS:
            encoded(form, folder / "plain.eqf", "I8_R", options.threads)
            set_scales(folder / "plain.eqf", out, static(read, matrices, method))
            yield way(f"I8_R{label}, static {method}", out)


def static(read: Calibration, matrices: set[str], method: str) -> dict[str, float]:
    """The scale of what each matrix reads."""
    return {name: scale(read.sketch(name), method) for name in matrices}


def encoded(file: File, out: Path, kind: str, threads: int, mixed: bool = False) -> None:
    """`file` with its matrices in a type, but for embedding and head, which are Q8_0; or as its recipe has them."""

    def type_of(info: TensorInfo) -> str:
        if len(info.shape) == 1 or mixed:
            return recipe(kind).type_for(info.name, info.shape, 1, "output.weight" not in file.tensors).type
        return "Q8_0" if info.name in KEPT else kind

    specs = [TensorSpec(info.name, info.shape, type_of(info)) for info in file.tensors.values()]
    with Writer(out, specs, file.metadata, {one: file.asset(one) for one in file.assets}, file.requires) as writer:
        for spec in specs:
            data = file.data(spec.name)
            if len(spec.shape) > 1:
                weights = decode(data, *spec.shape, file.tensors[spec.name].type)
                data = encode_panels(weights, spec.type, threads)
            writer.write(spec.name, data)


if __name__ == "__main__":
    script.run(main)
