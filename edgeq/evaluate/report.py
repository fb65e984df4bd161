"""All that is found out about some models, as data: made here, shown by others."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgeq.engine.model import Model
from edgeq.errors import UsageError
from edgeq.evaluate.activation_outliers import activation_outliers
from edgeq.evaluate.greedy import Change, Greedy, Prompt, answer, beginnings, changes, latency
from edgeq.evaluate.layer_errors import layer_errors
from edgeq.evaluate.measure import CHUNK, Divergence, chunks_for, measure, summary
from edgeq.evaluate.predictions import Measured, Positions
from edgeq.evaluate.reference_logits import ReferenceLogits
from edgeq.evaluate.slices import Slice, slices
from edgeq.evaluate.task_scores import Flips, TaskScore, flips, score_task
from edgeq.evaluate.tasks import Task
from edgeq.evaluate.texts import Chunk, Passage
from edgeq.quantize.outliers import Effect
from edgeq.version import VERSION

Say = Callable[[str], None]

# Bounds of a KL histogram's bins in nats, a quarter of a decade each; what is smaller or larger is in the outer ones.
EDGES = tuple(10 ** (exponent / 4) for exponent in range(-24, 7))

LAYER_CHUNKS = 2  # whose layers and outliers are looked at: an error over all their tokens is steady


@dataclass(frozen=True)
class Options:
    """What to find out.

    passages         texts of perplexity and divergence
    ctx_size         tokens of a chunk, of which the second half counts
    chunks           at most so many of each file
    reference_logits, reference_top_k   see `reference_logits`
    tasks            what to score
    prompts          what to answer; None takes `answers` beginnings of chunks
    answers          how many
    answer_tokens    tokens of an answer
    """

    passages: Sequence[Passage] = ()
    ctx_size: int = CHUNK
    chunks: int | None = None
    reference_logits: str | os.PathLike[str] | None = None
    reference_top_k: int | None = None
    tasks: Sequence[Task] = ()
    prompts: Sequence[Prompt] | None = None
    answers: int = 8
    answer_tokens: int = 32


@dataclass
class Candidate:
    """What was found out about a model.

    nbytes           of the file
    bits_per_weight  of the tensors
    memory           bytes: weights, kv, scratch
    loss             None without a text
    kl_histogram     positions in each bin of EDGES; empty without a reference
    slices           the worst one first
    tasks, flips     one of each per task; no flips without a reference
    latency          seconds of a token by percentile; empty where nothing was answered
    layers           relative error of each layer's output, see `layer_errors`; empty without a reference at hand
    changes          both models' answers, those that changed most first; empty without a reference
    """

    name: str
    nbytes: int
    bits_per_weight: float
    memory: dict[str, int]
    loss: Divergence | None = None
    kl_histogram: tuple[int, ...] = ()
    slices: list[Slice] = field(default_factory=list)
    tasks: list[TaskScore] = field(default_factory=list)
    flips: list[Flips] = field(default_factory=list)
    latency: dict[str, float] = field(default_factory=dict)
    layers: list[float] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    @property
    def worst(self) -> Slice | None:
        """The slice that lost most, if there are several and a reference."""
        return self.slices[0] if self.slices and self.slices[0].chance is not None else None


@dataclass
class Report:
    """Several models beside one reference, which is described as they are where it was at hand. `outliers`: channels of
    what matrices read, of the reference, or else of the first model; empty without a text."""

    candidates: list[Candidate]
    reference: Candidate | None
    reference_name: str | None
    texts: list[str]
    chunks: int
    ctx_size: int
    outliers: list[Effect] = field(default_factory=list)
    version: str = VERSION

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        found: dict[str, Any] = _finite({**asdict(self), "kl_histogram_edges": EDGES})
        return found


def evaluate(
    models: Sequence[Model],
    reference: Model | None,
    options: Options,
    say: Say = lambda line: None,
    names: Sequence[str] | None = None,
) -> Report:
    """Find out all that the options ask for. `names` are what the models and the reference are called, by default as
    their files. Raises as `divergence`, and UsageError where the options ask for nothing."""
    if not options.passages and not options.tasks and not options.prompts:
        raise UsageError("there is nothing to evaluate: give --text, --task or --prompts")
    everyone = [*models, *([] if reference is None else [reference])]
    called = names or [os.path.basename(model.file.path) for model in everyone]
    found = [_describe(*pair) for pair in zip(everyone, called, strict=True)]
    chunks, name = _measure(models, reference, options, found, say)
    _score(everyone, reference, options, found, say)
    _answer(everyone, reference, options, chunks, found, say)
    candidates, base = found[: len(models)], found[-1] if reference is not None else None
    texts = list(dict.fromkeys(passage.source for passage in options.passages))
    outliers = []
    if chunks:
        say("channels")
        outliers = activation_outliers(reference or models[0], chunks[:LAYER_CHUNKS])
    return Report(candidates, base, name, texts, len(chunks), options.ctx_size, outliers)


def _describe(model: Model, name: str) -> Candidate:
    bits = 8 * sum(tensor.nbytes for tensor in model.file.tensors.values()) / model.parameters
    return Candidate(name, model.file.nbytes, bits, model.session.memory())


def _measure(
    models: Sequence[Model], reference: Model | None, options: Options, found: list[Candidate], say: Say
) -> tuple[list[Chunk], str | None]:
    """Perplexity, divergence and slices; the chunks, and what the reference is called."""
    name = None if reference is None else found[-1].name
    if not options.passages:
        return [], name
    everyone = [*models, *([] if reference is None else [reference])]
    chunks = chunks_for(everyone, options.passages, options.ctx_size, options.chunks)
    with ExitStack() as stack:
        source: Model | ReferenceLogits | None = reference
        if options.reference_logits is not None:
            stored = ReferenceLogits(options.reference_logits, chunks, reference, options.reference_top_k)
            source = stack.enter_context(stored)
            name = name or stored.header["reference"]
        positions = measure(models, chunks, source, say)
    for candidate, one in zip(found, positions, strict=False):
        measured = one.select()
        candidate.loss, candidate.kl_histogram = summary(measured), _histogram(measured)
        candidate.slices = slices(chunks, one)
    if reference is not None:  # which the models were measured beside
        found[-1].loss = summary(_base(positions[0]))
        for model, candidate in zip(models, found, strict=False):
            say(f"{candidate.name}: layers")
            candidate.layers = layer_errors(model, reference, chunks[:LAYER_CHUNKS])
    return chunks, name


def _base(positions: Positions) -> Measured:
    """The reference's own positions, without another reference."""
    found = positions.select()
    empty = np.empty(0)
    return Measured(found.base, empty, empty, np.empty(0, bool), found.chunk)


def _histogram(found: Measured) -> tuple[int, ...]:
    if not len(found.kl):
        return ()
    counts, _ = np.histogram(np.clip(found.kl, EDGES[0], EDGES[-1]), EDGES)
    return tuple(counts.tolist())


def _score(
    everyone: Sequence[Model], reference: Model | None, options: Options, found: list[Candidate], say: Say
) -> None:
    for model, candidate in zip(everyone, found, strict=True):
        candidate.tasks = [
            score_task(model, task, lambda line, name=candidate.name: say(f"{name}: {line}"))  # type: ignore[misc]
            for task in options.tasks
        ]
    if reference is not None:
        for candidate in found[:-1]:
            candidate.flips = [flips(*pair) for pair in zip(candidate.tasks, found[-1].tasks, strict=True)]


def _answer(
    everyone: Sequence[Model],
    reference: Model | None,
    options: Options,
    chunks: Sequence[Chunk],
    found: list[Candidate],
    say: Say,
) -> None:
    prompts = options.prompts
    if prompts is None:
        prompts = beginnings(chunks, everyone[0], options.answers) if chunks and options.answers else []
    if not prompts or not options.answer_tokens:
        return
    answers: list[list[Greedy]] = []
    for model, candidate in zip(everyone, found, strict=True):
        answers.append(
            answer(model, prompts, options.answer_tokens, lambda line, name=candidate.name: say(f"{name}: {line}"))  # type: ignore[misc]
        )
        candidate.latency = latency(answers[-1])
    if reference is not None:
        for candidate, one in zip(found[:-1], answers, strict=False):
            candidate.changes = changes(prompts, answers[-1], one)


def _finite(value: Any) -> Any:
    """With None for what is no number, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
