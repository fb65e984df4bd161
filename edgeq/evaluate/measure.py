"""Perplexity of a text, and how far a model's predictions are from a reference's, as llama-perplexity defines them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from edgeq.engine.model import PART, Model
from edgeq.errors import UsageError
from edgeq.evaluate.predictions import Measured, Positions, Predicted, predictions
from edgeq.evaluate.reference_logits import ReferenceLogits
from edgeq.evaluate.statistics import Estimate, exponential, mean, percentiles, root_mean_square, share
from edgeq.evaluate.texts import Chunk, Passage, cut

CHUNK = 512  # tokens

KL_PERCENTS = (0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9)
DELTA_PERCENTS = (0.0, 0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Divergence:
    """How well a model predicts a text, and how far it is from a reference.

    positions             how many were predicted
    perplexity            exp of the mean of minus the logarithm of the following token's probability
    base_perplexity       the reference's; so are all below None or empty without a reference
    ratio                 perplexity / base_perplexity, with the error of paired positions
    log_ratio             its natural logarithm
    correlation           of both models' logarithms
    kl                    mean of KL(reference || model) in nats
    kl_percentiles        by percent; "50" is the median
    kl_max, kl_min
    same_top              share of positions where both find the same token likeliest
    delta_p               mean change of the following token's probability
    delta_p_rms           root of the mean of its square
    delta_p_percentiles   by percent; "0" and "100" are the least and the largest
    """

    positions: int
    perplexity: Estimate
    base_perplexity: Estimate | None = None
    ratio: Estimate | None = None
    log_ratio: Estimate | None = None
    correlation: float | None = None
    kl: Estimate | None = None
    kl_percentiles: dict[str, float] | None = None
    kl_max: float | None = None
    kl_min: float | None = None
    same_top: Estimate | None = None
    delta_p: Estimate | None = None
    delta_p_rms: Estimate | None = None
    delta_p_percentiles: dict[str, float] | None = None


def summary(found: Measured) -> Divergence:
    """The statistics of measured positions."""
    log = mean(found.nll)
    if len(found.base) == 0:
        return Divergence(len(found.nll), exponential(log))
    base = mean(found.base)
    n = len(found.nll)
    covariance = float(np.mean(found.nll * found.base) - log.value * base.value) / max(n - 1, 1)
    spread = log.error * base.error
    variance = log.error**2 + base.error**2 - 2 * covariance
    log_ratio = Estimate(log.value - base.value, sqrt(max(variance, 0.0)) if n > 1 else nan)
    return Divergence(
        positions=n,
        perplexity=exponential(log),
        base_perplexity=exponential(base),
        ratio=exponential(log_ratio),
        log_ratio=log_ratio,
        correlation=covariance / spread if spread else nan,
        kl=mean(found.kl),
        kl_percentiles=percentiles(found.kl, KL_PERCENTS),
        kl_max=float(found.kl.max()),
        kl_min=float(found.kl.min()),
        same_top=share(found.same),
        delta_p=mean(found.delta_p),
        delta_p_rms=root_mean_square(found.delta_p),
        delta_p_percentiles=percentiles(found.delta_p, DELTA_PERCENTS),
    )


def measure(
    models: Sequence[Model],
    chunks: Sequence[Chunk],
    reference: "Model | ReferenceLogits | None" = None,
    say: Say = lambda line: None,
) -> list[Positions]:
    """What each model predicts of the chunks, beside the reference; all see the same tokens at the same time, so that
    the reference is computed once and few of its logits are in memory."""
    found = [Positions() for _ in models]
    for number, chunk in enumerate(chunks):
        say(f"chunk {number + 1} of {len(chunks)}")
        base = _reference(reference, chunks, number)
        for parts in zip(base, *(predictions(model, chunk) for model in models), strict=True):
            for positions, part in zip(found, parts[1:], strict=True):
                positions.add(number, part, parts[0])
    return found


def _reference(
    reference: "Model | ReferenceLogits | None", chunks: Sequence[Chunk], number: int
) -> Iterator[Predicted | None]:
    if isinstance(reference, ReferenceLogits):
        return reference.predictions(number)
    if reference is not None:
        return predictions(reference, chunks[number])
    return iter([None] * -(-chunks[number].positions // PART))


def chunks_for(
    models: Sequence[Model], passages: Sequence[Passage], size: int = CHUNK, most: int | None = None
) -> list[Chunk]:
    """The chunks of a text, which must be the same for all models.

    Raises UsageError for models of different vocabularies or tokenizers, and a size that they cannot take.
    """
    if size < 2 * 4:
        raise UsageError(f"chunks of {size} tokens cannot work: give --ctx-size 8 or more")
    first = models[0]
    chunks = cut(passages, first.tokenizer, size, most)
    for model in models:
        if size > model.context:
            raise UsageError(
                f"{model.file.path}: chunks of {size} tokens do not fit in its context of {model.context}: give a "
                "smaller --ctx-size"
            )
        if model.vocab_size != first.vocab_size:
            raise UsageError(
                f"{model.file.path}: has a vocabulary of {model.vocab_size}, {first.file.path} one of "
                f"{first.vocab_size}: give models of one vocabulary"
            )
        if model is not first and cut(passages, model.tokenizer, size, most) != chunks:
            raise UsageError(
                f"{model.file.path}: its tokenizer splits the text otherwise than {first.file.path}'s: give models of "
                "one tokenizer"
            )
    return chunks


def divergence(
    model: Model,
    reference: Model | None,
    text: str | Sequence[Passage],
    *,
    ctx_size: int = CHUNK,
    chunks: int | None = None,
    reference_logits: str | os.PathLike[str] | None = None,
    reference_top_k: int | None = None,
) -> Divergence:
    """Perplexity of a text and divergence from a reference, in chunks of `ctx_size` tokens of which the second half
    counts; of at most so many `chunks`.

    `reference_logits` names a file that keeps the reference's predictions: made, gone on with, or used again, then
    also without a `reference`. `reference_top_k` keeps only so many tokens of a position, see `reference_logits`.
    Raises UsageError for too short a text, models of different vocabularies, and a file of other predictions.
    """
    passages = [Passage(text, "the text")] if isinstance(text, str) else text
    models = [model] if reference is None else [model, reference]
    parts = chunks_for(models, passages, ctx_size, chunks)
    with ExitStack() as stack:
        source: Model | ReferenceLogits | None = reference
        if reference_logits is not None:
            source = stack.enter_context(ReferenceLogits(reference_logits, parts, reference, reference_top_k))
        return summary(measure([model], parts, source)[0].select())


def perplexity(
    model: Model, text: str | Sequence[Passage], *, ctx_size: int = CHUNK, chunks: int | None = None
) -> Estimate:
    """Perplexity of a text and its standard error, see `divergence`."""
    return divergence(model, None, text, ctx_size=ctx_size, chunks=chunks).perplexity
