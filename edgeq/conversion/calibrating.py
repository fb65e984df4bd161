"""Calibrates a model, in whichever form it is, with texts: to a file that converting it takes."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from edgeq.blocks.table import block_type
from edgeq.checkpoints import open_checkpoint
from edgeq.container.gguf_values import is_gguf
from edgeq.container.header import is_eqf
from edgeq.container.reader import File, open_file
from edgeq.conversion.passages import LEAST, LENGTH, TOKENS, Text, passages, read_text, shipped
from edgeq.errors import OutputError, TokenizerError, UsageError
from edgeq.gguf.importer import import_gguf
from edgeq.models import architecture
from edgeq.quantize import collect, pipeline
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.collect import Passage, Progress
from edgeq.quantize.head import settle_head
from edgeq.quantize.imatrix import write_calibration
from edgeq.quantize.recipes import recipe
from edgeq.system.output import temporary_folder
from edgeq.text.tokenizer import FILES, load_tokenizer

ENDING = ".calib"
PARTIAL = ".partial"  # what the file is called while it is not whole
SMALL = 200_000_000  # weights, of what is calibrated unasked: it takes minutes
FEW_TOKENS = 100  # an expert that saw fewer is hardly calibrated

Announce = Callable[[str], None] | None
Texts = Sequence[Text | str | os.PathLike[str]] | None  # or files; None: those that come with edgeq


@dataclass(frozen=True)
class Report:
    """What calibrating did. `nbytes` is the file's; `notes` has a line for what a user should know."""

    path: str
    calibration: Calibration
    nbytes: int
    seconds: float
    notes: list[str]


def calibrate(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    texts: Texts = None,
    *,
    tokens: int = TOKENS,
    length: int | None = None,
    random_tokens: int = 0,
    gram: Collection[str] = (),
    threads: int | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
    conversion: pipeline.Progress | None = None,
    announce: Announce = None,
) -> Report:
    """Find out what the matrices of a model read, so that `convert` loses less: run `source`, a checkpoint (folder,
    weight file or Hub repository), an `.eqf` or a GGUF file, over `texts` (files of UTF-8, or .jsonl with a
    conversation a line), or over those that come with edgeq; write the file `out`, or `NAME.calib` here.

    `tokens`: of all texts together, at most; `length`: of a sequence, by default 512 or what the model was trained for,
    the less; `random_tokens`: so many drawn ones beside. `gram`: patterns (`blk.*.ffn_down.weight`) of matrices whose
    whole Gram matrix is kept, as the head's is. `progress` hears the text at work, tokens done, tokens in all;
    `announce` a line if kernels must be compiled first. A checkpoint runs from a temporary file beside `out`, in floats
    that hold it exactly; `conversion` hears how far that is. Killed, the same call goes on where it was.

    The report has the `calibration`, for a `Request`; `read_calibration` gives that of a file. Raises UsageError for
    texts that cannot be read or are too short, for a pattern that is no matrix's, and for an `out` that is the model;
    TokenizerError for a model without a tokenizer; MemoryLimitError for what does not fit in memory; OutputError if
    `out` cannot be written; of the source what `convert` raises.
    """
    started, known = time.perf_counter(), corpora(texts)
    given, target = os.fspath(source), Path(os.path.realpath(out or _default(source)))
    if target.is_dir() or not target.parent.is_dir():
        what = "is a folder" if target.is_dir() else f"the folder {target.parent} does not exist"
        raise OutputError(f"{out or target.name}: {what}: give the name of a file to write")
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise UsageError(f"{out}: is the model itself: give another name for the output")
    state = target.with_name(f"{target.name}{PARTIAL}")
    with runnable_file(source, target, threads, revision, conversion, announce) as file:
        sequences = sequences_of(file, given, known, tokens=tokens, length=length, random_tokens=random_tokens)
        calibration = collect.calibrate(
            file,
            sequences,
            name=_name(source),
            threads=threads,
            gram=gram,
            state=state,
            progress=progress,
            announce=announce,
        )
        notes = notes_on(calibration, file)
    write_calibration(out or target.name, calibration)
    with contextlib.suppress(OSError):
        state.unlink(missing_ok=True)
    path = os.fspath(out or target.name)
    return Report(path, calibration, os.path.getsize(path), time.perf_counter() - started, notes)


def corpora(texts: Texts) -> list[Text]:
    """`texts`, read; or those that come with edgeq. UsageError for a file that cannot be read, or holds no text."""
    return shipped() if texts is None else [one if isinstance(one, Text) else read_text(one) for one in texts]


def sequences_of(
    file: File, called: str, texts: Sequence[Text], length: int | None = None, **cut: int
) -> list[Passage]:
    """`texts` as a model reads them, `cut` as `passages.passages` says; None is the usual `length`, or what the
    model was trained for where that is less. TokenizerError for a model without a tokenizer; `called` is what messages
    call it."""
    if not file.assets.keys() & {*FILES}:
        raise TokenizerError(f"{called}: has no tokenizer, without which it reads no text")
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    tokenizer = load_tokenizer({name: file.asset(name) for name in file.assets}, called, vocabulary)
    if length is None:
        trained = architecture(file.metadata["config"], called).max_position_embeddings
        length = max(min(LENGTH, trained), LEAST)
    return passages(texts, tokenizer, length=length, source=called, **cut)


def _default(source: str | os.PathLike[str]) -> str:
    return f"{_name(source)}{ENDING}"


def _name(source: str | os.PathLike[str]) -> str:
    """The last part of a path or a repository's name, without the ending of a file."""
    path = Path(source)
    name = path.resolve().name if path.exists() else path.name
    return name if path.is_dir() else name.removesuffix(".eqf").removesuffix(".gguf").removesuffix(".safetensors")


@contextlib.contextmanager
def runnable_file(
    source: str | os.PathLike[str],
    beside: Path,
    threads: int | None = None,
    revision: str | None = None,
    progress: pipeline.Progress | None = None,
    announce: Announce = None,
) -> Iterator[File]:
    """`source` as an open `.eqf` file: itself, or one in a temporary folder beside a file that is to be written, in
    floats that hold a checkpoint exactly; what is quantized stays as it is."""
    if is_eqf(source):
        with open_file(source) as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(beside))
        except OSError as error:
            raise OutputError(f"{beside}: cannot be written: {error.strerror}: choose another place") from None
        made = folder / "model.eqf"
        if is_gguf(source) and not os.path.isdir(source):
            import_gguf(source, made, threads, progress, announce)
        else:
            with open_checkpoint(source, revision) as checkpoint:
                kind = pipeline.exact_type(checkpoint)
            pipeline.convert(source, made, kind, threads, progress, revision, announce=announce)
        yield stack.enter_context(open_file(made))


def worth_calibrating(source: str | os.PathLike[str], type: str | None, revision: str | None = None) -> bool:
    """Whether converting gains much by calibration, and in minutes: a checkpoint of up to SMALL weights that are not
    quantized, with a tokenizer and a head, to a type of fewer than 8 bits."""
    if block_type(recipe(type or pipeline.DEFAULT).base).bits >= 8 or not _is_checkpoint(source):
        return False
    with open_checkpoint(source, revision) as checkpoint:
        weights = sum(prod(ref.shape) for ref in checkpoint.tensors.values())
        model = settle_head(checkpoint)[1]
        known = bool(checkpoint.assets.keys() & {*FILES}) and model.writes_text
        return known and not checkpoint.packed and weights <= SMALL


def _is_checkpoint(source: str | os.PathLike[str]) -> bool:
    """Whether that is no file of a model that is quantized already; it may not exist."""
    if os.path.isdir(source):
        return True
    return not os.fspath(source).lower().endswith((".eqf", ".gguf")) and not is_eqf(source) and not is_gguf(source)


def notes_on(calibration: Calibration, file: File) -> list[str]:
    """What a user should know: experts that saw little, and what is not known."""
    notes = calibration.starved(FEW_TOKENS)
    notes = [*notes[:2], f"and {len(notes) - 2} more matrices like these"] if len(notes) > 3 else notes
    if any(name.endswith("down_exps.weight") for name in file.tensors):
        notes.append("what the last matrices of experts read is not known: these are quantized without")
    quantized = {info.type for name, info in file.tensors.items() if name.startswith("blk.") and len(info.shape) > 1}
    if kinds := quantized - {"F32", "F16", "BF16"}:
        notes.append(f"the model is quantized already ({', '.join(sorted(kinds))}): its original would tell more")
    return notes
