"""What quantization-aware training gains over calibration alone, at the same types and so the same size.

    python bench/qat.py tools/tiny_model --text tinystories_val.txt --held-out-from 1478370 --minutes 10
    python bench/qat.py checkpoint --text wiki.txt --held other.txt --types Q2_K --minutes 60 --length 512 --rows 1

Needs what `pip install edgeq[qat]` brings. Per type three files are made of the checkpoint: weights rounded one by one;
calibrated with the training text, error feedback layer by layer; and trained, from what the calibrated file computes,
to the float model's logits on that text (`edgeq.qat`), for so many minutes of processor time. The engine runs all of
them on the held-out text: mean KL divergence (nats) from the model in F32, and the loss on what really follows. A row
per file goes to bench/results; the table has all rows there of this model.

--work keeps the calibration and the files. A calibrated file that is there already is taken.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import script
import torch
from machine import machine, results_file
from quality import Loss, losses_of, tokens_of
from table_file import Measured, keep_each, number, rows_of, table
from transformers import AutoModelForCausalLM

from edgeq import qat
from edgeq.container.reader import open_file
from edgeq.conversion.calibrating import calibrate
from edgeq.conversion.conversion import convert
from edgeq.conversion.passages import Text
from edgeq.quantize.calibrated import Request
from edgeq.quantize.imatrix import read_calibration

ROUNDED, CALIBRATED, TRAINED = "rounded", "calibrated", "trained"
TYPES = "Q2_K,TQ2_0,Q4_0"
REPORTS = 20  # lines a run tells how far it is
WARM_UP = 0.05  # of the time, in which the rate rises


@dataclass
class Row(Measured):
    """One file. Divergences and losses in nats; `minutes`: of processor time, `steps`, `read` (tokens): of training."""

    KEY = ("model", "type", "way")

    model: str
    type: str
    way: str
    nbytes: int
    kl: float
    kl_error: float
    kl_99: float
    same_top: float
    loss: float
    positions: int
    minutes: float
    steps: int
    read: int
    rate: float
    cpu: str
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))


@dataclass
class Trained:
    """What a training did."""

    minutes: float = 0.0
    steps: int = 0
    read: int = 0


def batches(tokens: npt.NDArray[np.int64], options: argparse.Namespace, first: list[int]) -> Iterator[torch.Tensor]:
    """Rows of the text, each from a place drawn anew, int64 [rows, length], without end."""
    drawn, length = np.random.default_rng(options.seed), options.length - len(first)
    while True:
        starts = drawn.integers(0, len(tokens) - length, options.rows)
        yield torch.tensor(np.stack([[*first, *tokens[start : start + length]] for start in starts]))


def train(options: argparse.Namespace, kind: str, start: Path, out: Path) -> Trained:
    """Train the calibrated file `start` on, and write it as `out`."""
    with open_file(start) as file:
        bos, tokens = tokens_of(file, options.training, 1 << 40)
    teacher = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    model = copy.deepcopy(teacher)
    qat.prepare(model, kind, start, activations=not options.float_inputs, learned_scales=not options.fixed_scales)
    if options.checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.Adam(
        qat.parameter_groups(model, options.rate, options.scales, options.vectors), betas=(0.9, 0.95), eps=1e-12
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    found, told, sums = Trained(), 0, []
    began, limit = time.process_time(), 60 * options.minutes
    for batch in batches(tokens, options, [] if bos is None else [bos]):
        done = (time.process_time() - began) / limit
        if done >= 1:
            break
        share = min(done / WARM_UP, 1.0) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        with torch.no_grad():
            wanted = teacher(batch, use_cache=False).logits
        loss = qat.distillation_loss(model(batch, use_cache=False).logits, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.steps, found.read = found.steps + 1, found.read + batch.numel()
        sums.append(loss.item())
        if int(done * REPORTS) > told or found.steps == 1:
            told = int(done * REPORTS)
            print(f"{kind}: {done:4.0%}, step {found.steps}, divergence {np.mean(sums):.4f}", flush=True)
            sums.clear()
    found.minutes = (time.process_time() - began) / 60
    qat.convert(model, out, options.checkpoint)
    return found


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Three rows for each type."""
    work, name, cpu = options.work, options.checkpoint.name, machine()
    exact, calib = work / f"{name}-F32.eqf", work / f"{name}.calib"
    if not exact.exists():
        convert(options.checkpoint, exact, "F32")
    if not calib.exists():
        calibrate(options.checkpoint, calib, [Text("training text", options.training.split("<|endoftext|>"))])
    for kind in options.types:
        files = {way: work / f"{name}-{kind}-{way}.eqf" for way in (ROUNDED, CALIBRATED, TRAINED)}
        if not files[CALIBRATED].exists():
            convert(options.checkpoint, files[CALIBRATED], kind, request=Request(read_calibration(calib)))
        convert(options.checkpoint, files[ROUNDED], kind)
        done = train(options, kind, files[CALIBRATED], files[TRAINED])
        made = [("F32", exact, 32.0), *((way, path, 0.0) for way, path in files.items())]
        for loss in losses_of(made, options.judged, options.tokens, 1, options.window)[1:]:
            how = done if loss.name == TRAINED else Trained()
            nbytes, rate = files[loss.name].stat().st_size, options.rate if how is done else 0.0
            yield Row(name, kind, loss.name, nbytes, *figures(loss), how.minutes, how.steps, how.read, rate, cpu)


def figures(loss: Loss) -> tuple[float, float, float, float, float, int]:
    kl = np.concatenate(loss.kl)
    same, surprise = np.concatenate(loss.agrees), np.concatenate(loss.surprise)
    error = float(kl.std() / math.sqrt(len(kl)))
    return float(kl.mean()), error, float(np.quantile(kl, 0.99)), float(same.mean()), float(surprise.mean()), len(kl)


COLUMNS = ("nbytes", "kl", "kl_error", "kl_99", "same_top", "loss", "minutes", "steps", "read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--text", type=script.file, required=True, help="training text, UTF-8")
    parser.add_argument("--held", type=script.file, help="held-out text; default: the rest of --text")
    parser.add_argument("--held-out-from", type=int, metavar="BYTE", help="where the rest of --text begins")
    parser.add_argument("--types", type=lambda text: text.split(","), default=TYPES.split(","))
    parser.add_argument("--minutes", type=script.seconds, default=10.0, help="of processor time, per type (10)")
    parser.add_argument("--rate", type=float, default=0.002, help="of weights, in steps of the grid (0.002)")
    parser.add_argument("--scales", type=float, default=0.001, help="of scales, by their size (0.001)")
    parser.add_argument("--vectors", type=float, default=0.001, help="of norms and biases, by their size (0.001)")
    parser.add_argument("--rows", type=script.count, default=8, help="of a batch (8)")
    parser.add_argument("--length", type=script.count, default=256, help="tokens of a row (256)")
    parser.add_argument("--tokens", type=script.count, default=20000, help="of the held-out text, at most (20000)")
    parser.add_argument("--window", type=script.count, default=512, help="tokens judged in one go (512)")
    parser.add_argument("--fixed-scales", action="store_true", help="train no scales and mins")
    parser.add_argument("--float-inputs", action="store_true", help="do not round what layers read")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations twice, keep fewer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=script.count, default=1, help="of torch (1)")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    if (options.held is None) == (options.held_out_from is None):
        parser.error("give either --held or --held-out-from")
    content = options.text.read_bytes()
    options.training = content[: options.held_out_from].decode(errors="replace")
    rest = content[options.held_out_from :] if options.held is None else options.held.read_bytes()
    options.judged = rest.decode(errors="replace")
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    results = options.results or results_file("qat")
    keep_each(results, Row, rows(options))
    found = [row for row in rows_of(results, Row) if row["model"] == options.checkpoint.name]
    cells = [[row["type"], row["way"], *(number(row[name]) for name in COLUMNS)] for row in found]
    print(table([("type", False), ("way", False), *((name, True) for name in COLUMNS)], cells))


if __name__ == "__main__":
    script.run(main)
