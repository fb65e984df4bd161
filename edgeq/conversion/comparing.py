"""Every way to quantize that there is, tried on one model: what each takes, and what it loses on the same text."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import block_type
from edgeq.container.reader import File, open_file
from edgeq.conversion.calibrating import Texts, corpora, runnable_file, sequences_of
from edgeq.conversion.passages import TOKENS, Text
from edgeq.errors import EdgeqError, OutputError, UsageError
from edgeq.models import architecture
from edgeq.quantize import collect
from edgeq.quantize.calibrated import HELD, split
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.collect import Passage
from edgeq.quantize.equalize import SMOOTHING
from edgeq.quantize.imatrix import read_calibration
from edgeq.quantize.loss_probe import Loss, Probe
from edgeq.quantize.outliers import Effect, effects
from edgeq.quantize.recipes import recipe
from edgeq.quantize.requantize import FEEDBACK, IMPORTANCE, PER_ROW_SMOOTHING, PLAIN, requantize
from edgeq.quantize.simulated import FORMATS, simulate
from edgeq.quantize.static_ranges import scale
from edgeq.quantize.static_scales import set_scales
from edgeq.quantize.weight_error import Sample, sampled, weight_error
from edgeq.system import environment
from edgeq.system.output import temporary_folder

SMOOTHED, STATIC, BOTH = "smoothed", "static", "smoothed-static"
METHODS = (PLAIN, SMOOTHED, STATIC, BOTH, IMPORTANCE, FEEDBACK)
RANGES = "mse"  # how static scales are found
PAIRS = {("Q8_0", SMOOTHED), ("I8_R", SMOOTHED), ("I8_R", STATIC), ("I8_R", BOTH)}  # that are tried unasked
# What is tried where nothing else is said: what people ask for, from ternary to nearly lossless
TYPES = ("TQ2_0", "Q2_K", "Q3_K_M", "IQ4_XS", "MXFP4", "Q4_0", "NF4", "Q4_K_M", "Q5_K_M", "Q6_K", "I8_R", "Q8_0")
SIMULATED = ("INT4_ROW", "INT4_G128", "INT4_G128_ASYM", "NF4_DQ", "INT8_TENSOR", "INT8_ROW")
POSITIONS = 512  # of the text that is kept back

Sequences = Sequence[npt.NDArray[np.int32]]
Announce = Callable[[str], None] | None


@dataclass(frozen=True)
class Candidate:
    """A way to quantize the model, and what came of it.

    type             a recipe, or a simulated format
    method           "plain": each weight by itself; "smoothed": so, SmoothQuant's scales folded in before; "static":
                     activations with one scale per matrix, found before, in place of one per token; "smoothed-static":
                     both; "importance": columns weighed by what they read; "feedback": layer after layer, later weights
                     mending what earlier ones lost
    simulated        whether such a file cannot be made: its weights were rounded so, its bytes counted
    nbytes           of the file
    bits_per_weight  of all tensors
    loss             on text that it was not quantized for, beside the model in floats
    error            RMS error of the matrices' weights relative to their RMS, of a sample; None where columns were
                     scaled first, so that weights are others ("smoothed", "feedback")
    seconds          that it took to make
    """

    type: str
    method: str
    simulated: bool
    nbytes: int
    bits_per_weight: float
    loss: Loss
    error: float | None
    seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.type} simulated" if self.simulated else f"{self.type} {self.method}"


@dataclass
class Comparison:
    """All candidates of one model, the smallest first.

    source     the model
    nbytes     of its file without further loss: in floats, or as it is quantized already
    positions  at which the loss was measured
    notes      a line for each candidate that could not be made
    complete   False where Ctrl-C ended it
    outliers   of what matrices read, the furthest first, and what scaling columns makes of them; empty for a
               calibration that does not know them, or a model that is quantized already
    """

    source: str
    nbytes: int
    positions: int
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    outliers: list[Effect] = field(default_factory=list)

    @property
    def front(self) -> list[Candidate]:
        """Those worth having, the smallest first: of what can be made, whatever is no larger loses more."""
        best: list[Candidate] = []
        real = [one for one in self.candidates if not one.simulated]
        for one in sorted(real, key=lambda each: (each.nbytes, each.loss.divergence)):
            if not best or one.loss.divergence < best[-1].loss.divergence:
                best.append(one)
        return best


Found = Callable[[Candidate, int, int], None]  # (a candidate, how many are done, how many there are)


def compare(
    source: str | os.PathLike[str],
    types: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    texts: Texts = None,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    *,
    tokens: int = TOKENS,
    length: int | None = None,
    positions: int = POSITIONS,
    threads: int | None = None,
    revision: str | None = None,
    found: Found | None = None,
    progress: collect.Progress | None = None,
    announce: Announce = None,
) -> Comparison:
    """Quantize `source`, a checkpoint (folder, weight file or Hub repository), an `.eqf` or a GGUF file, in all `types`
    by all `methods`; tell bytes and loss of each. No file stays.

    `types`: recipes, and simulated formats (INT8_ROW, NF4_DQ, ...: edgeq.quantize.simulated), by default a handful.
    `methods`: "plain", "smoothed", "static", "smoothed-static", "importance", "feedback" (see `Candidate`); by default
    plain for all, feedback for recipes of k-quants, and of 8 bits what can be done to activations.
    Text is that of the `calibration` (or its file); without one `texts` (files of UTF-8, or .jsonl), or those that come
    with edgeq, cut to `tokens` in all, sequences of `length`, by default 512 or what the model was trained for, the
    less. A part of it, an eighth or less, is quantized for by nobody, and of this about `positions` tell the loss.

    The result has `candidates`, the smallest first: `type`, `method`, `nbytes`, `bits_per_weight`, `loss` (`divergence`
    and its `error`, `same_top`, `perplexity` over that of the source), `error` of the weights, `seconds`; those worth
    having as its `front`; `notes` of what could not be made.

    `found` hears of each candidate with how many are done and in all, `progress` how far calibrating is, `announce`
    what takes long. Ctrl-C ends it early, with what is known by then. Raises UsageError for unknown types and methods,
    text that is too little, a calibration of another model, a model that writes no text; TokenizerError for one without
    a tokenizer; OutputError where no temporary file can be written; of the source what `convert` raises.
    """
    if texts is not None and calibration is not None:
        raise UsageError("a calibration holds its text: give texts, or a calibration")
    known = read_calibration(calibration) if isinstance(calibration, str | os.PathLike) else calibration
    tries = planned(types, methods, feedback=known is None or bool(known.sequences))
    tell = announce or (lambda line: None)
    read: list[Text] = [] if known is not None and known.sequences else corpora(texts)
    given, threads = os.fspath(source), threads or environment.threads() or environment.processors()
    beside = _room()
    with (
        runnable_file(given, beside, threads, revision, None, announce) as file,
        temporary_folder(beside) as folder,
    ):
        model = architecture(file.metadata["config"], file.path)
        if not model.writes_text:
            raise UsageError(f"{given}: writes no text, so there is no divergence to compare by")
        if known is not None:
            known.check(model, given)
        passages, held = _texts(file, given, known, read, tokens, length)
        if known is None and any(method != PLAIN for _, method in tries):
            tell("calibrating")
            known = collect.calibrate(file, passages, threads=threads, progress=progress, announce=announce)
        elif known is not None and known.sequences:
            known = replace(known, sequences=tuple(np.array(one.tokens, np.int32) for one in passages))
        fresh = not any(block_type(info.type).quantized for info in file.tensors.values())
        if methods is None and not fresh:  # there is nothing to fold scales into
            tries = [(kind, method) for kind, method in tries if method not in (SMOOTHED, BOTH)]
        tell("running the model itself")
        probe = Probe(file, held, threads, positions)
        comparison = Comparison(given, file.nbytes, probe.positions)
        if known is not None and fresh:
            comparison.outliers = effects(file, model, known)
        workshop = _Workshop(file, known, passages, probe, threads, announce, folder, sampled(file))
        _try_all(comparison, workshop, tries, found)
    comparison.candidates.sort(key=lambda one: (one.nbytes, one.loss.divergence))
    return comparison


def planned(types: Sequence[str] | None, methods: Sequence[str] | None, feedback: bool = True) -> list[tuple[str, str]]:
    """(type, method) of all candidates, method after method, as these take longer and longer.

    What is simulated, or not quantized at all, knows the plain method alone; static scales are for types with one scale
    per row. `feedback`: whether there is text for it.
    Raises UsageError for what is unknown, or leaves nothing to do.
    """
    kinds = list(dict.fromkeys(map(_type, types))) if types is not None else [*TYPES, *SIMULATED]
    if unknown := {*(methods or ())} - {*METHODS}:
        raise UsageError(f"unknown method {min(unknown)!r}: known are {', '.join(METHODS)}")
    calibrated = FEEDBACK if feedback else IMPORTANCE
    if methods is not None and FEEDBACK in methods and not feedback:
        raise UsageError("the calibration holds no text to run, which feedback needs: make one with `edgeq calibrate`")
    found = []
    for method in METHODS:
        for kind in kinds:
            usual = method == PLAIN or (method == calibrated and "_K" in kind) or (feedback and (kind, method) in PAIRS)
            if (usual if methods is None else method in methods) and _possible(kind, method):
                found.append((kind, method))
    if not found:
        raise UsageError(
            f"{', '.join(kinds) or 'no type'}: cannot be made by {', '.join(methods or ())}: ask for plain"
        )
    return found


def _possible(kind: str, method: str) -> bool:
    """Whether there is such a candidate."""
    if method == PLAIN:
        return True
    base = None if kind in FORMATS else block_type(recipe(kind).base)
    return base is not None and base.quantized and (base.per_row or method not in (STATIC, BOTH))


def _type(name: str) -> str:
    """A type's name as it is spelled here."""
    if name.upper() in FORMATS:
        return name.upper()
    try:
        return recipe(name).name
    except UsageError as error:
        raise UsageError(f"{error}; simulated {', '.join(FORMATS)}") from None


def _room() -> Path:
    """What temporary files are made beside: in edgeq's cache, as models are that are made to be run."""
    beside = environment.cache_folder() / "compare"
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{beside.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE to a folder") from None
    return beside


def _texts(
    file: File, called: str, known: Calibration | None, read: Sequence[Text], tokens: int, length: int | None
) -> tuple[list[Passage], Sequences]:
    """(what to quantize for, what to measure on): of the calibration's text, or of the texts that were read."""
    if known is not None and known.sequences:
        passages = [Passage("", one.tolist()) for one in known.sequences]
    else:
        passages = sequences_of(file, called, read, tokens=tokens, length=length)
    sequences = [np.array(one.tokens, np.int32) for one in passages]
    _, held = split(sequences)
    if not held:
        what = f"of {HELD} sequences one is kept back to measure on, and there are {len(sequences)}"
        raise UsageError(f"{called}: {what}: give more text, or a smaller --ctx-size")
    kept = {id(one) for one in held}
    return [one for one, ids in zip(passages, sequences, strict=True) if id(ids) not in kept], held


@dataclass(frozen=True)
class _Workshop:
    """All that candidates are made and measured with."""

    file: File
    known: Calibration | None
    passages: Sequence[Passage]
    probe: Probe
    threads: int
    announce: Announce
    folder: Path
    sample: Sequence[Sample]

    def candidate(self, kind: str, method: str) -> Candidate:
        """Made, measured, and removed again."""
        out, started = self.folder / "candidate.eqf", time.perf_counter()
        if kind in FORMATS:
            nbytes, bits = simulate(self.file, out, kind, self.threads)
        else:
            smooth = None
            if method in (SMOOTHED, BOTH):
                smooth = PER_ROW_SMOOTHING if block_type(recipe(kind).base).per_row else SMOOTHING
            report = requantize(
                self.file.path,
                out,
                kind,
                self.threads,
                None,
                self.announce,
                calibration=None if method in (PLAIN, STATIC) else self.known,
                method=method if method in (IMPORTANCE, FEEDBACK) else PLAIN,
                smooth=smooth,
            )
            if method in (STATIC, BOTH):
                self._make_static(out)
            nbytes, bits = report.nbytes, report.bits_per_weight
        seconds = time.perf_counter() - started
        with open_file(out) as made:
            loss = self.probe.loss(made)
            error = None if method in (SMOOTHED, BOTH, FEEDBACK) else weight_error(self.sample, made)
        out.unlink()
        return Candidate(kind, method, kind in FORMATS, nbytes, bits, loss, error, seconds)

    def _make_static(self, path: Path) -> None:
        """Give a file the scales of what its matrices with one scale per row read of the text."""
        with open_file(path) as made:
            seen = collect.calibrate(made, self.passages, threads=self.threads, announce=self.announce)
            takers = [one.name for one in made.tensors.values() if block_type(one.type).per_row and seen.of(one.name)]
        scales = {name: scale(seen.sketch(name), RANGES) for name in takers}
        set_scales(path, path.with_name("static.eqf"), scales)
        os.replace(path.with_name("static.eqf"), path)


def _try_all(
    comparison: Comparison, workshop: _Workshop, tries: Sequence[tuple[str, str]], found: Found | None
) -> None:
    """Every candidate in turn; Ctrl-C leaves those that are done. Where one fails (weights past a type's range, say)
    others may do; where all fail, the first failure is raised."""
    failures: list[EdgeqError] = []
    try:
        for number, (kind, method) in enumerate(tries, 1):
            if workshop.announce:
                workshop.announce(f"{number} of {len(tries)}: {kind} {method}")
            try:
                comparison.candidates.append(workshop.candidate(kind, method))
            except EdgeqError as error:
                failures.append(error)
                comparison.notes.append(f"{kind} {method}: {error}")
                continue
            if found:
                found(comparison.candidates[-1], number, len(tries))
    except KeyboardInterrupt:
        if not comparison.candidates:
            raise
        comparison.complete = False
    if failures and not comparison.candidates:
        raise failures[0]
