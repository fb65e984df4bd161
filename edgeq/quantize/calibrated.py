"""A float model quantized for what it reads, as a request says: which types, which method; and what that has cost."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import tensor_bytes
from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, file_bytes
from edgeq.drift.seen import ASSET, Seen
from edgeq.errors import MemoryLimitError, OutputError, UsageError
from edgeq.models import architecture
from edgeq.quantize import type_plan as plans
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.converted import Report
from edgeq.quantize.equalize import equalized, smoothed
from edgeq.quantize.extract import extract, finished
from edgeq.quantize.layerwise import EMBEDDING
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.pipeline import Progress
from edgeq.quantize.reads import inputs
from edgeq.quantize.recipes import recipe
from edgeq.quantize.requantize import FEEDBACK, IMPORTANCE, METHODS, requantize
from edgeq.quantize.sensitivity import COARSE, FINE, HEAD, MEASURED, TOGETHER, Sensitivities, sensitivities
from edgeq.quantize.type_plan import Goal, Plan
from edgeq.runtime.program import default_context, fit_of
from edgeq.system import environment
from edgeq.system.output import write_file
from edgeq.version import VERSION

PLANNED = "planned"  # what a recipe is called whose types were chosen one by one
HELD = 8  # every eighth sequence, at most
MOST_HELD = 4  # sequences, is not quantized for: the loss is measured on it
RUNNERS, KV = 4, "f16"  # threads and KV cache of the machine that a file is made for
POSITIONS = 128  # of one of them tell how sensitive the model is

Sequences = Sequence[npt.NDArray[np.int32]]
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """How to quantize a model for what it reads.

    calibration what it read
    method      one of METHODS; None for "feedback" where the calibration has a text and the model's layers can be run
                one by one, else "importance"
    nbytes, bits, divergence, memory: of these at most one: the file's bytes, bits per weight, mean KL divergence in
                nats, or bytes that running it takes, that are not to be exceeded; types are then chosen by how
                sensitive the model is to each matrix
    plan        a file of types, as `save_plan` has written it
    rules       (regular expression, type) of matrices' names
    save_plan   where to keep the types that were chosen
    smooth      fold in SmoothQuant's scales, with this exponent, in place of scales by what columns matter; 0 to 1

    Raises UsageError for what cannot work.
    """

    calibration: Calibration
    method: str | None = None
    nbytes: float | None = None
    bits: float | None = None
    divergence: float | None = None
    memory: float | None = None
    plan: Path | None = None
    rules: tuple[tuple[str, str], ...] = ()
    save_plan: Path | None = None
    smooth: float | None = None

    def __post_init__(self) -> None:
        check_wishes(self.method, self.nbytes, self.bits, self.divergence, self.memory, self.plan, self.smooth)
        if not self.calibration.sequences and (self.method == FEEDBACK or self.aims):
            raise UsageError(f"{self.calibration.source}: holds no text to run: make one with `edgeq calibrate`")
        if self.smooth is not None and self.how != FEEDBACK:
            raise UsageError(f"{self.calibration.source}: smoothing is a part of feedback, which {self.how} is not")

    @property
    def aims(self) -> bool:
        """Whether types are to be chosen for a goal."""
        return any(aim is not None for aim in (self.nbytes, self.bits, self.divergence, self.memory))

    @property
    def how(self) -> str:
        """The method."""
        return self.method or (FEEDBACK if self.calibration.sequences else IMPORTANCE)


def check_wishes(
    method: str | None,
    nbytes: float | None,
    bits: float | None,
    divergence: float | None,
    memory: float | None,
    plan: Path | None,
    smooth: float | None = None,
) -> None:
    """UsageError for what a request cannot ask for, whatever the model."""
    if method is not None and method not in METHODS:
        raise UsageError(f"unknown method {method!r}: known are {', '.join(METHODS)}")
    if sum(aim is not None for aim in (nbytes, bits, divergence, memory, plan)) > 1:
        raise UsageError("a size, bits per weight, a divergence, a memory and a plan exclude one another: give one")
    if any(aim is not None and not aim > 0 for aim in (nbytes, bits, divergence, memory)):
        raise UsageError("a size, bits per weight, a memory and a divergence must be above 0")
    if smooth is not None and not 0 <= smooth <= 1:
        raise UsageError(f"a smoothing of {smooth} cannot work: give one from 0 to 1")


def quantize(
    floats: Path,
    out: str | os.PathLike[str],
    type: str,
    request: Request,
    folder: Path,
    threads: int | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    called: str | None = None,
    gguf: bool = False,
) -> Report:
    """Write the `.eqf` file `floats` as `out`, as a request says, by the recipe `type` where it does not choose types.

    The file says what it reads of the calibration's text (`edgeq.drift.seen`), but one that is to be `gguf`. `folder`
    keeps what is done, so that a call that was stopped can go on. The rest is as for `requantize`.
    """
    threads = threads or environment.threads() or environment.processors()
    calibration = request.calibration
    used, held = split(calibration.sequences)
    with open_file(floats) as file:
        model = architecture(file.metadata["config"], file.path)
        calibration.check(model, called or file.path)
        if request.method is None and not model.in_stages:
            request = replace(request, method=IMPORTANCE)
        if request.aims and not model.writes_text:
            raise UsageError(f"{called or file.path}: writes no text, so its loss is no divergence: give a --type")
        tell = announce or (lambda line: None)
        chosen = _Choice(file, called or file.path, type, request, held, threads, tell, gguf).plan()
        if request.save_plan:
            plans.save(chosen, request.save_plan)
        report = requantize(
            floats,
            out,
            type,
            threads,
            progress,
            announce,
            called,
            gguf,
            replace(calibration, sequences=tuple(used)),
            request.how,
            chosen.types,
            folder / "layers",
            PLANNED if request.aims or request.plan else None,
            request.smooth,
        )
        loss = None
        if held and model.writes_text:
            with open_file(out) as made:
                loss = Probe(file, held, threads).loss(made)
    report = report if gguf else _with_extract(report, calibration, threads, folder)
    return replace(report, loss=loss, predicted=chosen.divergence)


def _with_extract(report: Report, calibration: Calibration, threads: int, folder: Path) -> Report:
    """Have a report's file say what it reads. Where there is no room for that it does not, as it is sound without."""
    told = folder / "told.eqf"
    try:
        with open_file(report.path) as made:
            seen = extract(made, calibration, threads)
            if seen is None:
                return report
            finished(made, told, seen)
        os.replace(told, report.path)
    except (MemoryLimitError, OutputError) as error:
        return replace(report, notes=[*report.notes, f"`edgeq drift` will know nothing of this file: {error}"])
    return replace(report, nbytes=os.path.getsize(report.path))


def split(sequences: Sequences) -> tuple[Sequences, Sequences]:
    """(those to quantize for, those to measure on)."""
    count = min(len(sequences) // HELD, MOST_HELD)
    at = {int((i + 0.5) * len(sequences) / count) for i in range(count)}
    return [one for i, one in enumerate(sequences) if i not in at], [sequences[i] for i in sorted(at)]


@dataclass(frozen=True)
class _Choice:
    """How the types of a float model's matrices are chosen. `held` is text to measure on; the rest is as for
    `quantize`."""

    file: File
    called: str
    type: str
    request: Request
    held: Sequences
    threads: int
    announce: Announce
    gguf: bool

    def plan(self) -> Plan:
        """The types of all matrices."""
        file, request = self.file, self.request
        chosen = replace(recipe(self.type), gguf=self.gguf)
        tied, layers = HEAD not in file.tensors, architecture(file.metadata["config"], file.path)
        matrices = [info for info in file.tensors.values() if len(info.shape) > 1]
        usual = {
            info.name: chosen.type_for(info.name, info.shape, layers.num_hidden_layers, tied).type for info in matrices
        }
        made = Plan(usual)
        if request.plan:
            made = plans.load(request.plan)
            if unknown := made.types.keys() - usual.keys():
                what = f"names {min(unknown)}, which the model has not"
                raise UsageError(f"{request.plan}: {what}: it is another one's plan")
        if request.aims:
            made = self._aimed(usual)
        types = plans.override(usual | dict(made.types), request.rules)
        if request.aims or request.plan or request.rules:
            self.announce(f"plan: {Plan(types, made.divergence)}")
        return Plan(types, made.divergence)

    def _aimed(self, usual: dict[str, str]) -> Plan:
        """The types that serve the request's goal. Those that no sensitivity is known of keep their usual type."""
        file, goal = self.file, self._goal(usual)
        found = self._sensitivities()
        rest = {name: kind for name, kind in usual.items() if name not in found.losses}
        matrices = sum(tensor_bytes(usual[name], file.tensors[name].shape) for name in found.losses)
        fixed = self._file_bytes(usual) - matrices
        try:
            made = plans.plan(file, found, goal, fixed, self.gguf)
        except UsageError as error:
            raise UsageError(f"{self.called}: {error}") from None
        return Plan(rest | dict(made.types), made.divergence)

    def _goal(self, usual: dict[str, str]) -> Goal:
        """What the request aims at. Raises UsageError for a size that no types reach: before much is measured."""
        file, request = self.file, self.request
        if request.divergence is not None:
            return Goal(divergence=request.divergence)
        if request.nbytes is not None:
            goal = Goal(request.nbytes)
        elif request.memory is not None:
            goal = Goal(self._room(request.memory))
        else:
            assert request.bits is not None
            weights = sum(prod(info.shape) for info in file.tensors.values())
            tensors = sum(tensor_bytes(usual.get(i.name, "F32"), i.shape) for i in file.tensors.values())
            goal = Goal(request.bits * weights / 8 + self._file_bytes(usual) - tensors)
        small = {name: plans.smallest(file.tensors[name].shape, kind, self.gguf) for name, kind in usual.items()}
        try:
            plans.check_size(self._file_bytes(small), goal)
        except UsageError as error:
            raise UsageError(f"{self.called}: {error}") from None
        return goal

    def _file_bytes(self, types: Mapping[str, str]) -> int:
        """Of the file with matrices of these types, at most."""
        file = self.file
        specs = [TensorSpec(i.name, i.shape, types.get(i.name, "F32")) for i in file.tensors.values()]
        assets = {name: file.asset(name) for name in file.assets}
        if not self.gguf:
            groups = inputs(architecture(file.metadata["config"], file.path), file)
            assets[ASSET] = bytes(Seen.most_bytes(len(groups), len(self.request.calibration.corpora)))
        return file_bytes(specs, file.metadata, assets)

    def _room(self, memory: float) -> float:
        """Bytes of `memory` that are a file's, beside a usual conversation's keys and values, buffers, the program.

        Raises UsageError where there are none.
        """
        fit = fit_of(self.file, RUNNERS, KV)
        need = fit.estimate(default_context(fit.model))
        beside = need.total - need.weights
        if memory <= beside:
            what = f"takes {beside / 1e6:.0f} MB beside its weights, of {memory / 1e6:.0f} that there are"
            raise UsageError(f"{self.called}: {what}: it fits no such machine")
        return memory - beside

    def _sensitivities(self) -> Sensitivities:
        """Measured once: edgeq's cache keeps them for other goals.

        On floats: the rounding of activations to 8 bits differs with every change, and would be taken for its loss.
        """
        file, request = self.file, self.request
        calibration = request.calibration
        sequences, feedback = calibration.sequences, request.how == FEEDBACK
        if feedback:  # as they will be quantized
            matrices = {name for name, info in file.tensors.items() if len(info.shape) > 1}
            model = architecture(file.metadata["config"], file.path)
            if request.smooth is None:
                file = equalized(file, model, calibration.mean_square, matrices)
            else:
                file = smoothed(file, model, calibration.maxima, matrices, request.smooth)
        head = calibration.of(HEAD if HEAD in file.tensors else EMBEDDING)
        gram = None if head is None else head.gram
        types = plans.GGUF_TYPES if self.gguf else plans.TYPES
        settings = [VERSION, POSITIONS, COARSE, FINE, MEASURED, TOGETHER, types, request.how, request.smooth]
        digest = sha256(repr([settings, [info.crc32 for info in file.tensors.values()]]).encode())
        for part in (*sequences, *(() if gram is None else (gram,))):
            digest.update(np.ascontiguousarray(part).tobytes())
        kept = environment.cache_folder() / "sensitivities" / f"{digest.hexdigest()}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):  # not there, or damaged
            return Sensitivities(**json.loads(kept.read_bytes()))
        self.announce("measuring how sensitive the model is to each of its matrices")

        def tell(done: int, number: int) -> None:
            if done * 10 // number != (done - 1) * 10 // number:
                self.announce(f"{done} of {number} matrices measured")

        used, _ = split(sequences)
        found = sensitivities(
            file,
            used,
            self.held or used,
            types,
            feedback=feedback,
            head_gram=gram,
            positions=POSITIONS,
            threads=self.threads,
            progress=tell,
        )
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, json.dumps(asdict(found)).encode())
        return found
