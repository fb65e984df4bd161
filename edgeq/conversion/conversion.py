"""Converts a model together with its tokenizer, which is tried before anything is written: a checkpoint, or what is
quantized already, to an `.eqf` file or a GGUF file."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from edgeq.adapters.given import Lora, Wanted, files_of, wanted
from edgeq.checkpoints import Checkpoint, open_checkpoint
from edgeq.container.gguf_reader import open_gguf
from edgeq.container.gguf_values import is_gguf
from edgeq.container.gguf_writer import GgufSpec
from edgeq.container.header import is_eqf
from edgeq.container.reader import open_file
from edgeq.conversion.calibrating import worth_calibrating
from edgeq.conversion.plain_loss import may_be_bad, measurable, plain_loss
from edgeq.errors import OutputError, UsageError
from edgeq.models import architecture
from edgeq.quantize import pipeline
from edgeq.quantize.calibrated import PLANNED, Request, quantize
from edgeq.quantize.converted import Report
from edgeq.quantize.pipeline import Progress, default_output
from edgeq.quantize.recipes import recipe
from edgeq.quantize.requantize import requantize
from edgeq.system import endings
from edgeq.system.output import folder_of, temporary_folder
from edgeq.text.tokenizer import FILES, beyond_notes, load_tokenizer


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    type: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    revision: str | None = None,
    allow_no_tokenizer: bool = False,
    announce: Callable[[str], None] | None = None,
    request: Request | None = None,
    measure: bool = False,
    lora: Sequence[Lora] = (),
    vision: bool = True,
) -> Report:
    """Convert the checkpoint `source` (folder, weight file or Hub repository) to the file `out` by a recipe; or encode
    a GGUF or an `.eqf` file again, which needs a `type`.

    As `edgeq.quantize.pipeline.convert` and `edgeq.quantize.requantize`, which see; here TokenizerError is also raised
    for a tokenizer that cannot be read, or that belongs to another model. An `out` that ends in `.gguf` is written as
    GGUF; matrices with rows that the type cannot have there get another, and the report says so.

    With a `request`, which holds a calibration (`edgeq calibrate` makes one), the weights are quantized for what the
    model reads (`edgeq.quantize.calibrated`). If that is stopped, the same call goes on from the last layer done.

    To `measure` tells in the report's `loss` what few bits have cost without a calibration, where that takes seconds
    (`edgeq.conversion.plain_loss`), and where that is much, in `holds`, which recipe would do.

    `lora` are adapters (PEFT folders, GGUF files; `PATH:SCALE` or (path, scale)), added to a checkpoint's weights in
    f32 before anything else is done with these. Raises CheckpointError for one that is damaged or another model's,
    UnsupportedError for one that is no plain LoRA.

    Without `vision` what reads images is left out, of a model that sees.
    """
    if asked := wanted(lora):
        source = with_adapters(source, asked, out)
    if out is not None and _ends(out, *endings.CHECKPOINT):
        raise UsageError(f"{os.fspath(out)}: what is written is an .eqf or a .gguf file: name it so")
    if not os.path.isdir(source) and (is_gguf(source) or is_eqf(source) or _ends(source, ".gguf", ".eqf")):
        if not vision:
            raise UsageError(f"{os.fspath(source)}: images are left out of a checkpoint only: convert that again")
        return _again(source, out, type, threads, progress, allow_no_tokenizer, announce, request, measure)
    if request is not None:
        return _calibrated(
            source, out, type, threads, progress, revision, allow_no_tokenizer, announce, request, vision
        )

    gguf = out is not None and _ends(out, ".gguf")

    def made(path: str | os.PathLike[str] | None) -> Report:
        report = pipeline.convert(
            source,
            path,
            type,
            threads,
            progress,
            revision,
            allow_no_tokenizer,
            announce,
            check_tokenizer,
            gguf,
            vision=vision,
        )
        if measure and type is not None and may_be_bad(type) and worth_calibrating(source, type, revision):
            return _measured(source, report, type, threads, revision, announce, gguf, progress)
        return report

    return _exported(out, made, allow_no_tokenizer, progress, announce) if out is not None and gguf else made(out)


def with_adapters(
    source: str | os.PathLike[str], lora: Sequence[Wanted], out: str | os.PathLike[str] | None
) -> str | os.PathLike[str]:
    """What stands for a checkpoint with adapters merged; `source` where there are none. UsageError for what is no
    checkpoint, and where the output has no name of its own."""
    if not lora:
        return source
    if not os.path.isdir(source) and (is_gguf(source) or is_eqf(source) or _ends(source, ".gguf", ".eqf")):
        name = os.fspath(source)
        raise UsageError(f"{name}: adapters are merged into a checkpoint: convert that, or run this file with --lora")
    if out is None:
        raise UsageError(f"{os.fspath(source)}: with adapters it is another model: name the output with -o (out)")
    if os.path.exists(out) and any(os.path.samefile(file, out) for one in lora for file in files_of(one.path)):
        raise UsageError(f"{os.fspath(out)}: is a file of the adapter itself: give another name for the output")
    from edgeq.adapters.merging import MergedSource

    return MergedSource(source, lora)


def _measured(
    source: str | os.PathLike[str],
    report: Report,
    type: str,
    threads: int | None,
    revision: str | None,
    announce: Callable[[str], None] | None,
    gguf: bool,
    progress: Progress | None,
) -> Report:
    """The report of a checkpoint's file, with what that has lost."""
    started = time.perf_counter()
    with _beside(report.path) as folder:
        with open_checkpoint(source, revision) as checkpoint:
            exact = pipeline.exact_type(checkpoint) or "F32"
        floats = folder / "float.eqf"
        pipeline.convert(source, floats, exact, threads, progress, revision, announce=announce, vision=False)
        loss, holds = plain_loss(floats, report.path, type, folder, threads, announce, gguf, progress)
    return replace(report, loss=loss, holds=holds, seconds=report.seconds + time.perf_counter() - started)


def _calibrated(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    type: str | None,
    threads: int | None,
    progress: Progress | None,
    revision: str | None,
    allow_no_tokenizer: bool,
    announce: Callable[[str], None] | None,
    request: Request,
    vision: bool,
) -> Report:
    """A checkpoint, in floats first, then quantized as a request says."""
    started = time.perf_counter()
    chosen = recipe(type or pipeline.DEFAULT)
    planned = PLANNED if request.aims or request.plan else chosen.name
    out = os.fspath(out or default_output(source, planned))
    gguf, key = _ends(out, ".gguf"), f"{pipeline.key_of(source, revision)} {vision}"
    vision = vision and not gguf

    def made(path: str | os.PathLike[str]) -> Report:
        with _resumable(out, key) as folder:
            floats = folder / "float.eqf"
            notes: list[str] = []
            if not floats.exists():
                with open_checkpoint(source, revision) as checkpoint:
                    exact = pipeline.exact_type(checkpoint) or "F32"
                report = pipeline.convert(
                    source,
                    floats,
                    exact,
                    threads,
                    None,
                    revision,
                    allow_no_tokenizer,
                    announce,
                    check_tokenizer,
                    vision=vision,
                )
                notes = report.notes
            report = quantize(
                floats, path, chosen.name, request, folder, threads, progress, announce, os.fspath(source), gguf
            )
        return replace(report, seconds=time.perf_counter() - started, notes=notes + report.notes)

    return _exported(out, made, allow_no_tokenizer, progress, announce) if gguf else made(out)


def _key(path: str) -> str:
    """Changes with a file."""
    status = os.stat(path)
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"


@contextmanager
def _resumable(out: str | os.PathLike[str], key: str) -> Iterator[Path]:
    """A folder beside `out` for what it is made of, which stays if that is not finished. What another `key` left there
    is removed."""
    folder = folder_of(out) / f".{Path(out).name}.unfinished"
    try:
        if folder.exists() and (folder / "key").read_text() != key:
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        (folder / "key").write_text(key)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror}: remove it, or choose another place"
        ) from None
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _again(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    type: str | None,
    threads: int | None,
    progress: Progress | None,
    allow_no_tokenizer: bool,
    announce: Callable[[str], None] | None,
    request: Request | None,
    measure: bool,
) -> Report:
    """Encode a model again that is quantized already."""
    from edgeq.gguf.importer import import_gguf

    name, imports = os.fspath(source), is_gguf(source) or (_ends(source, ".gguf") and not is_eqf(source))
    (open_gguf if imports else open_file)(source).close()  # what is none of them says so first
    if type is None:
        as_it_is = (
            "a GGUF file: `edgeq import` takes it as it is" if imports else "an .eqf file already: it runs as it is"
        )
        raise UsageError(f"{name}: is {as_it_is}, --type encodes it again")
    recipe(type)
    out = os.fspath(out or default_output(source, type.upper()))
    gguf = _ends(out, ".gguf")
    if os.path.exists(out) and os.path.samefile(source, out):
        raise UsageError(f"{out}: is the model itself: give another name for the output")

    def encoded(folder: Path, path: str | os.PathLike[str]) -> Report:
        model, notes = Path(source), list[str]()
        if imports and not (model := folder / "imported.eqf").exists():
            notes = import_gguf(source, model, threads, progress, announce, allow_no_tokenizer).notes
        called = name if imports else None
        if request is None:
            report = requantize(model, path, type, threads, progress, announce, called, gguf)
            if measure and may_be_bad(type) and measurable(model):
                loss, holds = plain_loss(model, path, type, folder, threads, announce, gguf, progress)
                report = replace(report, loss=loss, holds=holds)
        else:
            report = quantize(model, path, type, request, folder, threads, progress, announce, called, gguf)
        return replace(report, notes=notes + report.notes)

    def made(path: str | os.PathLike[str]) -> Report:
        started = time.perf_counter()
        with _beside(out) if request is None else _resumable(out, _key(name)) as folder:
            report = encoded(folder, path)
        return replace(report, seconds=time.perf_counter() - started)

    return _exported(out, made, allow_no_tokenizer, progress, announce) if gguf else made(out)


def _exported(
    out: str | os.PathLike[str],
    make: Callable[[Path], Report],
    allow_no_tokenizer: bool,
    progress: Progress | None,
    announce: Callable[[str], None] | None,
) -> Report:
    """What `make` gives, as the GGUF file `out`; GGUF's tensors are named and counted in the report."""
    from edgeq.gguf.export_plan import AS_Q8_0
    from edgeq.gguf.exporter import export_gguf

    started = time.perf_counter()
    with _beside(out) as folder:
        report = make(folder / "converted.eqf")
        exported = export_gguf(report.path, out, AS_Q8_0, allow_no_tokenizer, progress=progress, announce=announce)
    ours, tensors = {tensor.name: tensor for tensor in report.tensors}, []
    for one in exported.tensors:
        part = ours[one.parts[0]]
        why = f"GGUF has one type for {', '.join(one.parts)}: {one.type}" if one.again else part.fallback
        nbytes = GgufSpec(one.name, one.shape, one.type).nbytes
        tensors.append(replace(part, name=one.name, shape=one.shape, type=one.type, nbytes=nbytes, fallback=why))
    seconds, notes = time.perf_counter() - started, report.notes + exported.notes
    return replace(report, path=exported.path, nbytes=exported.nbytes, seconds=seconds, notes=notes, tensors=tensors)


@contextmanager
def _beside(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside a file that is to be written, for what it is made of."""
    path = folder_of(out) / Path(os.path.realpath(out)).name
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(path))
        except OSError as error:
            raise OutputError(f"{os.fspath(out)}: cannot be written: {error.strerror}: choose another place") from None
        yield folder


def _ends(path: str | os.PathLike[str], *suffixes: str) -> bool:
    return os.fspath(path).lower().endswith(suffixes)


def verify(checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """As `edgeq.quantize.pipeline.verify`, and its tokenizer too; the result is what there is to say of it."""
    model = architecture(checkpoint.config, f"{checkpoint.source}: config.json")
    notes = check_tokenizer(checkpoint.assets, checkpoint.source, model.vocab_size)
    if not checkpoint.assets.keys() & {*FILES}:
        notes.append("there is no tokenizer: the model runs on token ids only")
    if unused := pipeline.verify(checkpoint, progress):
        notes.append(f"{len(unused)} tensors are not used, {unused[0]} the first")
    return notes


def check_tokenizer(assets: Mapping[str, bytes], source: str, vocab_size: int) -> list[str]:
    """What there is to say of the tokenizer among a checkpoint's small files. TokenizerError if it cannot be read, or
    belongs to a model of another vocabulary."""
    if not assets.keys() & {*FILES}:
        return []
    return beyond_notes(load_tokenizer(assets, source, vocab_size), vocab_size)
