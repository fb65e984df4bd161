"""How much a quantized model's predictions differ from those of the same model in F32, on held-out text.

    python bench/quality.py tools/tiny_model --text tinystories_val.txt --held-out-from 1478370 --tokens 30000

Converts the checkpoint to F32 and to each type, and evaluates the text in windows of the model's context, each after a
beginning-of-text token; documents are separated by `<|endoftext|>`. Per type: mean and 99th percentile over all
positions of KL(F32 || type) in nats, how often both like the same token best, perplexity, and bits per weight.

--split shows in a second row the loss from the weights alone, which rounded activations and the f16 cache do not touch:
the quantized weights are decoded to F32, and evaluated as such.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import script
from decoded import write_decoded
from table_file import write

from edgeq.container.reader import File, open_file
from edgeq.quantize.pipeline import convert
from edgeq.quantize.recipes import recipe
from edgeq.runtime.session import Session
from edgeq.text.tokenizer import load_tokenizer

TYPES = "F16,Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_K_S,Q4_0"
SEPARATOR = "<|endoftext|>"
STEP = 64  # positions whose logits are held at a time
F64 = npt.NDArray[np.float64]


@dataclass
class Loss:
    """What was measured of one file, position by position."""

    name: str
    bits_per_weight: float
    kl: list[F64] = field(default_factory=list)
    agrees: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    surprise: list[F64] = field(default_factory=list)

    def add(self, exact: F64, found: F64, following: npt.NDArray[np.int64]) -> None:
        """Log probabilities [positions, vocabulary] of F32 and of this file; the tokens that really follow."""
        self.kl.append((np.exp(exact) * (exact - found)).sum(axis=1))
        self.agrees.append(exact.argmax(axis=1) == found.argmax(axis=1))
        self.surprise.append(-found[np.arange(len(following)), following])

    def row(self) -> dict[str, float | str]:
        kl, surprise = np.concatenate(self.kl), np.concatenate(self.surprise)
        return {
            "type": self.name,
            "bits_per_weight": round(self.bits_per_weight, 3),
            "mean_kl": float(f"{kl.mean():.4g}"),
            "kl_99": float(f"{np.quantile(kl, 0.99):.4g}"),
            "top1_agreement": round(float(np.concatenate(self.agrees).mean()), 4),
            "perplexity": round(float(np.exp(surprise.mean())), 4),
            "tokens": len(surprise),
        }


def tokens_of(file: File, text: str, count: int) -> tuple[int | None, npt.NDArray[np.int64]]:
    """(the beginning-of-text token, the first `count` tokens of the text), documents one after the other."""
    tokenizer = load_tokenizer({name: file.asset(name) for name in file.assets})
    bos = tokenizer.bos_id
    tokens: list[int] = []
    for document in text.split(SEPARATOR):
        if document.strip():
            tokens += tokenizer.encode(document.strip(), add_special=False, parse_special=False)
            tokens += [] if bos is None else [bos]
        if len(tokens) >= count:
            break
    return bos, np.array(tokens[:count], np.int64)


def windows(bos: int | None, tokens: npt.NDArray[np.int64], context: int) -> Iterator[npt.NDArray[np.int64]]:
    """Runs of `context` tokens to evaluate and the one that follows them."""
    first = [] if bos is None else [bos]
    step = context + 1 - len(first)
    for start in range(0, len(tokens), step):
        window = np.concatenate([np.array(first, np.int64), tokens[start : start + step]])
        if len(window) > 1:
            yield window


def log_probabilities(logits: npt.NDArray[np.float32]) -> F64:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def files(checkpoint: Path, types: Sequence[str], folder: Path, split: bool) -> Iterator[tuple[str, Path, float]]:
    """(name, path, bits per weight) of everything to evaluate, F32 first."""
    for type in ["F32", *types]:
        path = folder / f"{type}.eqf"
        bits = convert(checkpoint, path, type).bits_per_weight
        yield type, path, bits
        if split and type != "F32":
            write_decoded(path, alone := folder / f"{type}-decoded.eqf")
            yield f"{type} weights alone", alone, bits


def measure(
    checkpoint: Path, text: str, types: Sequence[str], count: int, split: bool = False, threads: int | None = None
) -> list[dict[str, float | str]]:
    """A row per file, F32 first."""
    with tempfile.TemporaryDirectory() as folder:
        made = list(files(checkpoint, types, Path(folder), split))
        return [loss.row() for loss in losses_of(made, text, count, threads)]


def losses_of(
    made: Sequence[tuple[str, Path, float]],
    text: str,
    count: int,
    threads: int | None = None,
    context: int | None = None,
) -> list[Loss]:
    """What each of the files (name, path, bits per weight) loses to the first one, in windows of `context` tokens, the
    model's by default; all see the same tokens at the same time, so that little memory is needed."""
    with ExitStack() as stack:
        losses, sessions = [], []
        for name, path, bits in made:
            file = stack.enter_context(open_file(path))
            sessions.append(stack.enter_context(Session(file, threads=threads, context=context)))
            losses.append(Loss(name, bits))
        bos, tokens = tokens_of(sessions[0].file, text, count)
        for window in windows(bos, tokens, context or sessions[0].context):
            for session in sessions:
                session.rewind(0)
            for start in range(0, len(window) - 1, STEP):
                chunk, following = window[:-1][start : start + STEP], window[1:][start : start + STEP]
                exact = None
                for session, loss in zip(sessions, losses, strict=True):
                    found = log_probabilities(session.eval(chunk.tolist(), all_logits=True))
                    exact = found if exact is None else exact
                    loss.add(exact, found, following)
        return losses


def show(rows: Sequence[dict[str, float | str]]) -> None:
    print(f"{'type':<22} {'bits/weight':>11} {'mean KL':>10} {'99% KL':>10} {'top-1':>8} {'perplexity':>11}")
    for row in rows:
        print(
            f"{row['type']:<22} {row['bits_per_weight']:>11.3f} {row['mean_kl']:>10.3g} {row['kl_99']:>10.3g} "
            f"{row['top1_agreement']:>8.2%} {row['perplexity']:>11.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--text", type=script.file, required=True, help="UTF-8 text")
    parser.add_argument("--held-out-from", type=int, default=0, metavar="BYTE", help="skip the text before")
    parser.add_argument("--types", default=TYPES, help=f"recipes, separated by commas (default {TYPES})")
    parser.add_argument(
        "--tokens", type=script.count, default=20000, help="at most this many tokens of the text (20000)"
    )
    parser.add_argument("--split", action="store_true", help="also the loss from the weights alone")
    parser.add_argument("--threads", type=script.count)
    parser.add_argument("-o", "--output", type=Path, help="write the rows as CSV")
    options = parser.parse_args()
    text = options.text.read_bytes()[options.held_out_from :].decode(errors="replace")
    if not text.strip():
        parser.error(f"{options.text} has no text after byte {options.held_out_from}")
    types = options.types.split(",")
    for name in types:
        recipe(name)  # UnsupportedError for one that is none
    began = time.perf_counter()
    rows = measure(options.checkpoint, text, types, options.tokens, options.split, options.threads)
    print(f"{options.checkpoint.name}, {rows[0]['tokens']} tokens, {time.perf_counter() - began:.0f} s")
    show(rows)
    if options.output:
        write(options.output, rows, list(rows[0]))


if __name__ == "__main__":
    script.run(main)
