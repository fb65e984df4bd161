"""What each step of calibrated quantization saves: a model's divergence with the steps taken one after the other.

    python bench/ablation.py float.eqf --calibration model.calib --text held_out.txt --types Q3_K,Q4_K --work FOLDER

The file holds the model in F32 (`edgeq convert --type F32 --no-calibration`), the calibration its sequences of tokens.
All linear layers get the type, the embedding and the head Q6_K, by these steps:

  plain        each weight by itself
  importance   errors weighted by E[x^2] of what a column is multiplied with
  feedback     errors mended by the columns that are rounded later, with the float model's E[x x^T]
  layerwise    the same, layer after layer, with what the quantized layers before give
  corrected    the same, corrected towards the float model's residual stream: what counts as the base here
  swept        and scale groups rounded again for the errors of all others
  equalized    the same of an equal model whose weightier columns are larger: what `edgeq convert` does

Divergence is KL(float || quantized) in nats per token, of the second halves of chunks of 512 tokens, as
llama-perplexity has it; the quantized model rounds its activations, as it always does. `change` is of the mean against
--base, with the standard error of the differences position by position. What is measured lies in --work and is used
again.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import script
from machine import results_file
from table_file import Measured, keep_each, table

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile, Own
from edgeq.container.reader import File, open_file
from edgeq.errors import UsageError
from edgeq.graph.aligned import aligned
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.equalize import equalized
from edgeq.quantize.factors import F64
from edgeq.quantize.imatrix import read_calibration
from edgeq.quantize.layerwise import EMBEDDING, LayerWise
from edgeq.runtime.session import Session
from edgeq.text.tokenizer import load_tokenizer

ENDS, ENDS_TYPE = (EMBEDDING, "output.weight"), "Q6_K"
CHUNK = 512
TOKENS, CHUNKS = 8192, 8
BASE = "corrected"

Sequences = Sequence[npt.NDArray[np.int32]]


@dataclass
class Row(Measured):
    """KL divergence in nats and share of equal likeliest tokens, of `positions`; `*_error` is one standard error.
    `change` is relative to the mean divergence of the step `base`."""

    KEY = ("model", "step", "type", "tokens", "text", "positions")

    model: str
    step: str
    type: str
    tokens: int
    text: str
    positions: int
    kl: float
    kl_error: float
    kl_99: float
    same_top: float
    base: str
    change: float | None
    change_error: float | None
    seconds: float | None
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))


@dataclass(frozen=True)
class Study:
    """A float model, what it read, and the block type of its linear layers."""

    file: File
    calibration: Calibration
    sequences: Sequences
    kind: str
    threads: int

    @property
    def types(self) -> dict[str, str]:
        """Of all matrices."""
        matrices = [name for name, info in self.file.tensors.items() if len(info.shape) == 2]
        return {name: ENDS_TYPE if name in ENDS else self.kind for name in matrices}

    def mean_square(self, name: str) -> F32 | None:
        """E[x^2] of what a matrix reads, f32 [columns]."""
        found = self.calibration.of(name)
        return None if found is None else found.mean_square

    def encoded(self, weighted: bool) -> File:
        """Quantized, each matrix by itself."""
        panels = {
            name: encode_panels(
                weights(self.file, name), kind, self.threads, self.mean_square(name) if weighted else None
            )
            for name, kind in self.types.items()
        }
        return self._with(panels)

    def layer_by_layer(self, kind: type[LayerWise]) -> File:
        """Quantized by a way of doing that layer after layer."""
        head = self.calibration.of("output.weight" if "output.weight" in self.file.tensors else EMBEDDING)
        gram = None if head is None else head.gram
        layers = kind(self.file, self.types, self.sequences, head_gram=gram, threads=self.threads)
        return self._with(dict(layers.tensors()))

    def equalized(self) -> "Study":
        """The same of an equal model whose weightier columns are larger."""
        model = architecture(self.file.metadata["config"], self.file.path)
        return replace(self, file=equalized(self.file, model, self.mean_square, self.types))

    def _with(self, panels: Mapping[str, U8]) -> File:
        own: Own = {}
        for name, data in panels.items():
            own[name] = self.types[name], aligned(data.nbytes)
            own[name][1][:] = data
        return ChangedFile(self.file, own)


class Unswept(LayerWise):
    """Each scale group rounded once."""

    sweeps = 0


class Feedback(Unswept):
    """Every matrix for what it reads in the float model."""

    def _with(self, panels: Mapping[str, U8]) -> File:
        return self.file


class Uncorrected(Unswept):
    """For what matrices read in the quantized model, without corrections."""

    def _quantized(self, names: Sequence[str], gram: F64, corrections: Mapping[str, F64]) -> dict[str, U8]:
        return super()._quantized(names, gram, {})


STEPS: dict[str, Callable[[Study], File]] = {
    "plain": lambda study: study.encoded(weighted=False),
    "importance": lambda study: study.encoded(weighted=True),
    "feedback": lambda study: study.layer_by_layer(Feedback),
    "layerwise": lambda study: study.layer_by_layer(Uncorrected),
    "corrected": lambda study: study.layer_by_layer(Unswept),
    "swept": lambda study: study.layer_by_layer(LayerWise),
    "equalized": lambda study: study.equalized().layer_by_layer(LayerWise),
}


def weights(file: File, name: str) -> F32:
    info = file.tensors[name]
    return decode(file.data(name), *info.shape, info.type)


class Held:
    """Held-out text, and what the float model makes of it."""

    def __init__(self, file: File, text: Path, chunks: int, threads: int, work: Path) -> None:
        self.threads, content = threads, text.read_bytes()
        assets = {name: file.asset(name) for name in file.assets}
        tokenizer = load_tokenizer(assets, file.path, file.tensors[EMBEDDING].shape[0])
        ids = np.array(tokenizer.encode(content.decode(), add_special=False), np.int32)
        if len(ids) < chunks * CHUNK:
            raise UsageError(f"{text}: has {len(ids)} tokens of this model, not {chunks} x {CHUNK}: give a longer one")
        self.chunks = ids[: chunks * CHUNK].reshape(chunks, CHUNK)
        self._exact = work / f"{fingerprint(file)}-{hashlib.sha256(self.chunks.tobytes()).hexdigest()[:12]}.npy"
        if not self._exact.exists():
            results = np.stack(list(self._results(file)))
            np.save(self._exact, results)

    @property
    def name(self) -> str:
        """That of what the float model makes of it, for files."""
        return self._exact.stem

    def measure(self, file: File) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Of each position, f64: the divergence; bool: whether the likeliest token is the same."""
        divergences, same = [], []
        for exact, found in zip(np.load(self._exact, mmap_mode="r"), self._results(file), strict=True):
            divergences.append(np.sum(np.exp(exact) * (exact - found), axis=1, dtype=np.float64))
            same.append(exact.argmax(1) == found.argmax(1))
        return np.concatenate(divergences), np.concatenate(same)

    def _results(self, file: File) -> Iterator[F32]:
        """Logarithms of probabilities of the second half of each chunk, f32 [positions, vocabulary]."""
        with Session(file, context=CHUNK, batch=CHUNK, threads=self.threads, kv="f16", force=True) as session:
            for chunk in self.chunks:
                session.rewind(0)
                logits = session.eval(chunk, all_logits=True)[CHUNK // 2 :].copy()
                logits -= logits.max(axis=1, keepdims=True)
                logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
                yield logits


def fingerprint(file: File) -> str:
    """Of its weights."""
    return hashlib.sha256(repr([info.crc32 for info in file.tensors.values()]).encode()).hexdigest()[:12]


def rows(options: argparse.Namespace, file: File) -> Iterator[Row]:
    """A row for each type and step."""
    calibration = read_calibration(options.calibration)
    held = Held(file, options.text, options.chunks, options.threads, options.work)
    every = max(sum(map(len, calibration.sequences)) // options.tokens, 1)
    sequences = calibration.sequences[::every]
    tokens = sum(map(len, sequences))
    for kind in options.types:
        block_type(kind)  # UnsupportedError for one that is none
        study = Study(file, calibration, sequences, kind, options.threads)
        for step in options.steps:
            kept = options.work / f"{held.name}-{step}-{kind}-{tokens}.npz"
            if not kept.exists():
                started = time.perf_counter()
                quantized = STEPS[step](study)
                seconds = time.perf_counter() - started
                divergences, same = held.measure(quantized)
                np.savez(kept, divergences=divergences, same=same, seconds=seconds)
            at = (options.file.stem, step, kind, tokens, options.text.name)
            base = options.work / f"{held.name}-{options.base}-{kind}-{tokens}.npz"
            yield row(at, kept, options.base, base if step != options.base and base.exists() else None)


def row(at: tuple[str, str, str, int, str], kept: Path, base: str, base_kept: Path | None) -> Row:
    """What was measured, beside the base if that was."""
    change = change_error = None
    with np.load(kept) as found:
        kl, same, seconds = found["divergences"], found["same"], float(found["seconds"])
    if base_kept:
        with np.load(base_kept) as found:
            other = found["divergences"]
        change = float(kl.mean() / other.mean() - 1)
        change_error = float((kl - other).std() / np.sqrt(len(kl)) / other.mean())
    figures = float(kl.mean()), float(kl.std() / np.sqrt(len(kl))), float(np.percentile(kl, 99)), float(same.mean())
    measured = Row(*at, len(kl), *figures, base if base_kept else "", change, change_error, seconds)
    print(shown([measured]).splitlines()[-1], flush=True)
    return measured


def shown(measured: Sequence[Row]) -> str:
    """As a Markdown table."""
    headings = [("type", False), ("step", False), ("KL", True), ("+-", True), ("99 %", True), ("same top", True)]
    lines = []
    for one in measured:
        change = "" if one.change is None else f"{one.change:+.1%} +- {one.change_error:.1%}"
        figures = f"{one.kl:.4f}", f"{one.kl_error:.4f}", f"{one.kl_99:.3f}", f"{one.same_top:.1%}", change
        lines.append([one.type, one.step, *figures, f"{one.seconds:.0f}"])
    return table([*headings, ("change", True), ("s", True)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=script.file)
    parser.add_argument("--calibration", type=script.file, required=True)
    parser.add_argument("--text", type=script.file, required=True, help="held-out text, UTF-8")
    parser.add_argument("--types", type=lambda text: text.split(","), default=["Q2_K", "Q3_K", "Q4_K"])
    parser.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS))
    parser.add_argument("--base", default=BASE, help=f"step that others are compared with  [default: {BASE}]")
    parser.add_argument(
        "--tokens", type=script.count, default=TOKENS, help=f"of the calibration's  [default: {TOKENS}]"
    )
    parser.add_argument("--chunks", type=script.count, default=CHUNKS, help=f"of {CHUNK} tokens  [default: {CHUNKS}]")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is measured")
    parser.add_argument("--threads", type=script.count, default=1)
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    if unknown := [step for step in options.steps if step not in STEPS]:
        parser.error(f"unknown step {unknown[0]}: known are {', '.join(STEPS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    with open_file(options.file) as file:
        measured = keep_each(options.results or results_file("ablation"), Row, rows(options, file))
    print("\n" + shown(measured))


if __name__ == "__main__":
    script.run(main)
