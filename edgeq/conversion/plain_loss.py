"""What rounding each weight by itself has cost a model, and which type would have held: found out where that takes
seconds, and where it may be much, so that no rubbish is written in silence."""

import os
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from edgeq.blocks.table import SUPER_BLOCK, block_type
from edgeq.container.reader import open_file
from edgeq.conversion.calibrating import SMALL, corpora, sequences_of
from edgeq.models import architecture
from edgeq.quantize.calibrated import split
from edgeq.quantize.loss_probe import Loss, Probe
from edgeq.quantize.pipeline import DEFAULT, Progress
from edgeq.quantize.recipes import recipe
from edgeq.quantize.requantize import requantize
from edgeq.system import environment
from edgeq.text.tokenizer import FILES

# Types of so many bits or fewer may be bad where a model is SMALL: they multiplied the perplexity of one of 135 M
# weights by 6 (Q2_K), 1.9 (Q3_K_S), 1.5 (MXFP4), 1.4 (Q4_K_S, NF4), 1.2 (Q4_0), 1.1 (IQ4_NL, IQ4_XS), and Q5_K_S by
# less. The default, which mixes in larger types, did by 1.17; it is not measured: what most people make is to be made
# at once.
FEW_BITS = 4.5
PASSAGES = 2  # of 512 tokens tell the loss
LADDER = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "F16")


def may_be_bad(type: str) -> bool:
    """Whether a recipe is worth measuring."""
    chosen = recipe(type)
    return chosen.name != DEFAULT and block_type(chosen.base).bits_per_weight(SUPER_BLOCK) <= FEW_BITS


def measurable(path: str | os.PathLike[str]) -> bool:
    """Whether an `.eqf` file's model is small, and reads and writes text."""
    with open_file(path) as file:
        weights = sum(prod(info.shape) for info in file.tensors.values())
        writes = architecture(file.metadata["config"], file.path).writes_text
        return writes and weights <= SMALL and bool(file.assets.keys() & {*FILES})


def plain_loss(
    exact: str | os.PathLike[str],
    made: str | os.PathLike[str],
    type: str,
    folder: Path,
    threads: int | None = None,
    announce: Callable[[str], None] | None = None,
    gguf: bool = False,
    progress: Progress | None = None,
) -> tuple[Loss, str]:
    """(what the file `made` of the recipe `type` has lost beside `exact`, the smallest recipe that holds where that is
    much, else ""). Measured on a part of the texts that come with edgeq; `folder` is for what is tried.
    `progress` hears of what is encoded, and, without numbers, that something is measured."""

    def measured(path: str | os.PathLike[str], kind: str) -> Loss:
        if progress:
            progress(f"measuring {kind}", 0, 0, 0, 0)
        with open_file(path) as made:
            return probe.loss(made)

    with open_file(exact) as file:
        passages = sequences_of(file, os.fspath(exact), corpora(None))
        _, held = split([np.array(one.tokens, np.int32) for one in passages])
        threads = threads or environment.threads() or environment.processors()
        probe = Probe(file, held[:PASSAGES], threads)
        loss = measured(made, type)
        if not loss.large:
            return loss, ""
        if announce:
            announce(f"{type} loses much: looking for the smallest type that holds")

        def holds(kind: str) -> bool:
            report = requantize(exact, folder / "tried.eqf", kind, threads, progress, announce, gguf=gguf)
            return not measured(report.path, kind).large

        return loss, _smallest(type, holds)


def _smallest(type: str, holds: Callable[[str], bool]) -> str:
    """The first of the recipes above `type` that holds, as those above it do: found by halving."""
    bits = block_type(recipe(type).base).bits_per_weight(SUPER_BLOCK)
    name = recipe(type).name
    larger = [kind for kind in LADDER if block_type(recipe(kind).base).bits_per_weight(SUPER_BLOCK) > bits]
    above = LADDER[LADDER.index(name) + 1 :] if name in LADDER else tuple(larger)
    first, last = 0, len(above) - 1  # the last one, which does not quantize, holds
    while first < last:
        middle = (first + last) // 2
        if holds(above[middle]):
            last = middle
        else:
            first = middle + 1
    return above[last]
