"""From F16 weights to a quantized file: `edgeq convert` beside llama.cpp's quantizer, time and rounding error.

    python bench/convert_speed.py checkpoint --peer-python /path/to/python

The checkpoint, a folder, should hold F16 weights: llama.cpp starts from a GGUF file of the same weights in F16, made
here first, and wall time is that of a fresh process, with both sources in the page cache. They take turns.

Error is the RMS of decoded minus F16 weights over the RMS of the F16 weights, over the matrices that either engine
quantizes, the first --rows of each. It depends on what the weights are: those of a random checkpoint are Gaussian.
Both get the recipe of the same name; `types` tells what became of it. Rows are merged into
bench/results/convert-<CPU>-<cores>-cores.csv.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import ClassVar

import export_gguf
import gguf
import numpy as np
import script
from machine import cores, machine, results_file
from table_file import Measured, keep_each, table
from turns import wall

import edgeq
from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.reader import open_file
from edgeq.quantize.recipes import recipe

HERE = Path(__file__).resolve().parent


@dataclass
class ConvertRow(Measured):
    """seconds: of every turn; error: RMS relative to the weights'; file_bytes: of the result."""

    KEY: ClassVar = ("model", "recipe", "threads", "engine")

    date: str
    machine: str
    model: str
    recipe: str
    threads: int
    engine: str
    seconds: list[float]
    median_seconds: float
    mb_per_second: float
    file_bytes: int
    error: float
    types: str


class Errors:
    """Squares of differences and of weights, summed over matrices."""

    def __init__(self) -> None:
        self.wrong = self.whole = 0.0
        self.types: Counter[str] = Counter()

    def add(self, kind: str, exact: np.ndarray, found: np.ndarray) -> None:
        self.types[kind] += 1
        exact = exact.astype(np.float64)
        self.wrong += float(((found - exact) ** 2).sum())
        self.whole += float((exact**2).sum())

    @property
    def relative(self) -> float:
        return float(np.sqrt(self.wrong / self.whole)) if self.whole else 0.0

    def __str__(self) -> str:
        return " ".join(f"{count} {kind}" for kind, count in self.types.most_common())


def edgeq_errors(exact: Path, made: Path, rows: int) -> Errors:
    errors = Errors()
    with open_file(exact) as source, open_file(made) as result:
        for info in result.tensors.values():
            if len(info.shape) == 2:
                count = min(rows, info.shape[0])
                errors.add(info.type, *(_rows(f, info.name, count) for f in (source, result)))
    return errors


def _rows(file: edgeq.container.reader.File, name: str, count: int) -> np.ndarray:
    info = file.tensors[name]
    nbytes = -(-count // PANEL_ROWS) * block_type(info.type).panel_bytes(info.shape[1])
    return decode(file.data(name)[:nbytes], count, info.shape[1], info.type)


def llama_errors(exact: Path, made: Path, rows: int) -> Errors:
    errors = Errors()
    source = {t.name: t for t in gguf.GGUFReader(exact).tensors}
    for tensor in gguf.GGUFReader(made).tensors:
        if len(tensor.shape) == 2:
            parts = (source[tensor.name], tensor)
            errors.add(tensor.tensor_type.name, *(gguf.quants.dequantize(t.data[:rows], t.tensor_type) for t in parts))
    return errors


def measure(checkpoint: Path, folder: Path, options: argparse.Namespace) -> Iterator[ConvertRow]:
    exact, gguf_exact = folder / "f16.eqf", folder / "f16.gguf"
    ours, theirs = folder / "edgeq.eqf", folder / "llama.gguf"
    edgeq.convert(checkpoint, exact, "F16", allow_no_tokenizer=True)
    export_gguf.export(exact, gguf_exact)
    threads, kind = str(options.threads), options.type
    convert = [sys.executable, "-m", "edgeq", "convert", str(checkpoint), "--allow-no-tokenizer", "-t", threads]
    quantize = [options.peer_python, str(HERE / "quantize_llama.py"), str(gguf_exact), str(theirs), kind, threads]
    commands = {"edgeq": [*convert, "--type", kind, "-o", str(ours)], "llama.cpp": quantize}
    for command in commands.values():
        wall(command)  # compiles, and reads the sources in
    errors = {
        "edgeq": edgeq_errors(exact, ours, options.rows),
        "llama.cpp": llama_errors(gguf_exact, theirs, options.rows),
    }
    made = {"edgeq": ours, "llama.cpp": theirs}
    seconds: dict[str, list[float]] = {engine: [] for engine in commands}
    for _ in range(options.repetitions):
        for engine, command in commands.items():
            seconds[engine].append(wall(command))
    for engine, times in seconds.items():
        yield ConvertRow(
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=machine(),
            model=checkpoint.resolve().name,
            recipe=kind,
            threads=options.threads,
            engine=engine,
            seconds=times,
            median_seconds=median(times),
            mb_per_second=gguf_exact.stat().st_size / median(times) / 1e6,
            file_bytes=made[engine].stat().st_size,
            error=errors[engine].relative,
            types=str(errors[engine]),
        )


HEADINGS = (
    ("model", False),
    ("recipe", False),
    ("threads", True),
    ("engine", False),
    ("seconds", True),
    ("MB/s of F16", True),
    ("file, MB", True),
    ("relative error", True),
    ("types", False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama_cpp  [default: this]")
    parser.add_argument("--type", default="Q4_K_M", help="recipe, the same name in both  [default: Q4_K_M]")
    parser.add_argument("--threads", type=script.count, default=cores(), help="[default: all cores]")
    parser.add_argument("--repetitions", type=script.count, default=3, help="turns of each engine  [default: 3]")
    parser.add_argument(
        "--rows", type=script.count, default=1024, help="of each matrix, for the error  [default: 1024]"
    )
    parser.add_argument("--work", type=script.folder, help="folder for the files, large  [default: a temporary one]")
    parser.add_argument("--results", type=Path, default=results_file("convert"), help="CSV file to merge rows into")
    options = parser.parse_args()
    recipe(options.type)  # UnsupportedError for one that is none
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        rows = keep_each(options.results, ConvertRow, measure(options.checkpoint, Path(folder), options))
    cells = [
        (
            r.model,
            r.recipe,
            str(r.threads),
            r.engine,
            f"{r.median_seconds:.2f}",
            f"{r.mb_per_second:.0f}",
            f"{r.file_bytes / 1e6:.1f}",
            f"{r.error:.5f}",
            r.types,
        )
        for r in rows
    ]
    print(table(HEADINGS, cells))


if __name__ == "__main__":
    script.run(main)
