"""How much a checkpoint's quantized files lose, by llama.cpp's own measure, beside what its own quantizer makes.

    python bench/judge.py checkpoint --text held_out.txt --llama LLAMA_CPP/build/bin --work FOLDER \\
        --calibration other.txt --peer Q2_K,Q3_K_M,Q4_K_M,Q5_K_M,Q6_K --files mine.eqf other.gguf

`llama-perplexity --kl-divergence` compares each file with the checkpoint in F32 on held-out text, in chunks of 512
tokens of which the second halves count. --peer are files of llama-quantize, with an importance matrix that
llama-imatrix makes of other text, or without one where --calibration is left out.

A file is judged by its weights just as it gives them, decoded to an F32 GGUF file: that goes for every type, also for
those that GGUF has not or not in rows like these, and no activation is rounded. --blocks gives llama.cpp the file's own
blocks instead, an .eqf file through an export; then rounded activations are part of the loss.

Sizes are those of the tensors alone: a tokenizer takes more room in one format than in the other. What is made on the
way lies in --work and is used again: the F32 file, its logits, importance matrices, the peer's files, what was said of
each file. A row per file goes to bench/results; the table has all rows there of this model and text. Its last column
is a file's divergence by that of the peer's calibrated files at the same size, between two of which it is interpolated.
"""

import argparse
import hashlib
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import script
from decoded import write_decoded
from llama_tools import CONTEXT, LlamaTools, once, statistics
from machine import results_file
from table_file import Measured, keep_each, number, rows_of, table

from edgeq.container.gguf_reader import open_gguf
from edgeq.container.gguf_values import is_gguf
from edgeq.container.reader import open_file
from edgeq.conversion.conversion import convert
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf

CHUNKS, CALIBRATION_CHUNKS = 24, 64
DECODED, BLOCKS = "decoded", "blocks"


@dataclass
class Judged(Measured):
    """What one file loses. Perplexities and divergences (nats) as llama-perplexity defines them; `*_error` is one
    standard error; `same_top` and `rms_delta_p` in per cent."""

    KEY = ("model", "file", "weights", "text", "chunks", "calibration")

    model: str
    file: str
    weights: str  # DECODED or BLOCKS
    text: str
    chunks: int
    calibration: str  # of the peer's: text and chunks
    tensor_bytes: int
    bits_per_weight: float
    kl: float
    kl_error: float
    kl_median: float
    kl_90: float
    kl_95: float
    kl_99: float
    kl_999: float
    kl_max: float
    same_top: float
    same_top_error: float
    rms_delta_p: float
    perplexity: float
    ppl_ratio: float
    ppl_ratio_error: float
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))


@dataclass(frozen=True)
class Candidate:
    """A file to judge, what to call it, and what the peer's is calibrated on."""

    path: Path
    name: str
    calibration: str = ""


def digest(path: Path) -> str:
    """Some digits that tell the contents of a file, or of the weights in a folder, from others."""
    total = hashlib.sha256()
    for part in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with part.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:12]


@dataclass(frozen=True)
class Judge:
    """A checkpoint and the text on which its files are judged; `work` is for what is made on the way."""

    checkpoint: Path
    text: Path
    chunks: int
    tools: LlamaTools
    work: Path

    @cached_property
    def exact(self) -> Path:
        """The checkpoint in F32, as GGUF."""

        def make(path: Path) -> None:
            with tempfile.TemporaryDirectory(dir=self.work) as folder:  # a name that ends in .gguf
                shutil.move(convert(self.checkpoint, Path(folder, "exact.gguf"), "F32").path, path)

        return once(self.work / f"{self.checkpoint.name}-{digest(self.checkpoint)}.gguf", make)

    @cached_property
    def base(self) -> Path:
        """Its logits on the text."""
        name = f"{self.exact.stem}-on-{digest(self.text)}-{self.chunks}.logits"
        return self.tools.base(self.exact, self.text, self.chunks, self.work / name)

    def peer(self, kind: str, calibration: Path | None, chunks: int) -> Candidate:
        """llama.cpp's file of a type."""
        imatrix, suffix, seen = None, "", ""
        if calibration:
            suffix, seen = f"-by-{digest(calibration)}-{chunks}", f"{calibration.name}, {chunks} x {CONTEXT}"
            out = self.work / f"{self.exact.stem}{suffix}.imatrix.gguf"
            imatrix = self.tools.imatrix(self.exact, calibration, chunks, out)
        out = self.work / f"{self.exact.stem}{suffix}-{kind}.gguf"
        name = f"llama.cpp {kind}{' with imatrix' if imatrix else ''}"
        return Candidate(self.tools.quantize(self.exact, imatrix, kind, out), name, seen)

    def measure(self, candidate: Candidate, blocks: bool) -> Judged:
        """The row of a file. What llama-perplexity said of the same contents before is taken again."""
        weights = BLOCKS if blocks else DECODED
        said = self.work / f"{self.base.stem}-{weights}-{digest(candidate.path)}.txt"

        def make(path: Path) -> None:
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                model = as_gguf(candidate.path, Path(folder), blocks)
                path.write_text(self.tools.divergence(model, self.base), encoding="utf-8")

        found = statistics(once(said, make).read_text(encoding="utf-8"))
        nbytes, count = sizes(candidate.path)
        at = (self.checkpoint.name, candidate.name, weights, self.text.name, self.chunks, candidate.calibration)
        return Judged(*at, nbytes, 8 * nbytes / count, **found)


def as_gguf(path: Path, folder: Path, blocks: bool) -> Path:
    """A file as llama.cpp takes it: its own blocks, or the weights that they stand for."""
    if blocks and is_gguf(path):
        return path
    out = folder / "judged.gguf"
    if not blocks:
        source = path
        if is_gguf(path):
            source = folder / "imported.eqf"
            import_gguf(path, source)
        write_decoded(source, folder / "decoded.eqf")
        path = folder / "decoded.eqf"
    export_gguf(path, out)
    return out


def sizes(path: Path) -> tuple[int, int]:
    """(bytes of all tensors, how many weights they are)."""
    with open_gguf(path) if is_gguf(path) else open_file(path) as file:
        tensors = list(file.tensors.values())
        return sum(tensor.nbytes for tensor in tensors), sum(prod(tensor.shape) for tensor in tensors)


def rows(judge: Judge, options: argparse.Namespace) -> Iterator[Judged]:
    """A row per file, ours as soon as it is measured."""
    for kind in options.peer:
        yield judge.measure(judge.peer(kind, options.calibration, options.calibration_chunks), options.blocks)
    for path in options.files:
        yield judge.measure(Candidate(path, path.name), options.blocks)


COLUMNS = (
    ("file", None),
    ("tensor_bytes", 0),
    ("bits_per_weight", 3),
    ("kl", 5),
    ("kl_error", 5),
    ("kl_99", 4),
    ("same_top", 2),
    ("ppl_ratio", 4),
)
NEAR = 0.005  # sizes that differ by no more are equal


def beside_peer(row: Mapping[str, str], peers: Sequence[Mapping[str, str]], column: str = "kl") -> float | None:
    """A column of a file by what the peer's calibrated files have at its size: between two of them, the logarithm is
    taken to be linear in the bytes. None for a size beyond theirs."""
    points = sorted((float(peer["tensor_bytes"]), math.log(float(peer[column]))) for peer in peers)
    at = float(row["tensor_bytes"])
    if not points or not points[0][0] * (1 - NEAR) <= at <= points[-1][0] * (1 + NEAR):
        return None
    sizes, logarithms = zip(*points, strict=True)
    return float(row[column]) / math.exp(float(np.interp(at, sizes, logarithms)))


def show(every: Sequence[Mapping[str, str]], judge: Judge, weights: str) -> str:
    """All rows of the results that compare with those of this run, the smallest file first."""
    same = {"model": judge.checkpoint.name, "weights": weights, "text": judge.text.name, "chunks": str(judge.chunks)}
    cells = sorted((row for row in every if same.items() <= row.items()), key=lambda row: float(row["tensor_bytes"]))
    peers = [row for row in cells if row["calibration"]]
    lines = []
    for row in cells:
        line = [row[name] if digits is None else number(row[name], digits) for name, digits in COLUMNS]
        ratio = None if row in peers else beside_peer(row, peers)
        lines.append([*line, "" if ratio is None else f"{ratio:.2f}"])
    return table([*((name, digits is not None) for name, digits in COLUMNS), ("kl / peer's", True)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--files", type=script.file, nargs="+", default=[], help=".eqf and .gguf files made of it")
    parser.add_argument("--text", type=script.file, required=True, help="held-out text, UTF-8")
    parser.add_argument("--chunks", type=script.count, default=CHUNKS, help=f"of {CONTEXT} tokens  [default: {CHUNKS}]")
    parser.add_argument("--llama", type=script.folder, required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--peer", type=lambda text: text.split(","), default=[], help="types, separated by commas")
    parser.add_argument("--calibration", type=script.file, help="text for the peer's importance matrix")
    parser.add_argument(
        "--calibration-chunks", type=script.count, default=CALIBRATION_CHUNKS, help=f"[default: {CALIBRATION_CHUNKS}]"
    )
    parser.add_argument("--blocks", action="store_true", help="llama.cpp runs the files' own blocks")
    parser.add_argument("--threads", type=script.count, default=2)
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    if not options.peer and not options.files:
        parser.error("nothing to judge: give --files or --peer")
    options.work.mkdir(parents=True, exist_ok=True)
    tools = LlamaTools(options.llama, options.threads)
    judge = Judge(options.checkpoint, options.text, options.chunks, tools, options.work)
    results = options.results or results_file("judge")
    keep_each(results, Judged, rows(judge, options))
    print(show(rows_of(results, Judged), judge, BLOCKS if options.blocks else DECODED))


if __name__ == "__main__":
    script.run(main)
