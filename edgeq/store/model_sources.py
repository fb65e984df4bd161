"""What a runnable file can be made of: a GGUF file, a checkpoint, a repository of the Hub with either."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.container.gguf_values import is_gguf
from edgeq.errors import CheckpointError, FormatError, UnsupportedError, UsageError
from edgeq.system import endings

REVISION = 6  # raised when what is made changes
SMALL = (".json", ".jinja", ".model", ".txt")  # ends of names of what is read beside weights

Announce = Callable[[str], None] | None
Progress = Callable[[str, int, int], None] | None  # what is at work, bytes done, bytes in all


@dataclass(frozen=True)
class Source:
    """What becomes a file in the cache: `place` names it, `state` changes when its content does.

    `fetch(announce)` gets what is not here yet, and raises where nothing can be made of it; `make(target, announce,
    progress)` writes the file, and gives notes on it; `verb` is what that does, and the command that does it by hand.
    """

    text: str
    origin: str  # an absolute path, or a repository
    name: str
    place: str
    state: str
    verb: str
    size: str
    fetch: Callable[[Announce], object]
    make: Callable[[Path, Announce, Progress], list[str]]
    kind: str | None = None  # the recipe that was asked for
    mmproj: str | None = None  # the GGUF file of what it sees with that was asked for: an absolute path

    @property
    def beginning(self) -> str:
        """What the names of the files that it becomes, one after the other, begin with."""
        return f"{self.name}-{_digest(self.place)}-"

    @property
    def filename(self) -> str:
        """The name of the file that it becomes now."""
        return f"{self.beginning}{_digest(self.state, str(REVISION))}.eqf"


def source_of(text: str, mmproj: str | None = None) -> Source | None:
    """What must be made into a file first; None for anything else, an `.eqf` file above all. `mmproj` is a GGUF file of
    what a model sees with, which such a file may be given beside: UsageError for other models."""
    found = _source_of(text)
    return found if mmproj is None else _seeing(text, found, mmproj)


def _source_of(text: str) -> Source | None:
    if is_gguf(text):
        return _gguf(text)
    if os.path.exists(text):
        return _checkpoint(text) if os.path.isdir(text) or text.endswith(endings.CHECKPOINT) else None
    stem, colon, kind = text.rpartition(":")
    if not colon:
        return repository(text) if _is_repository(text) else None
    if not os.path.isdir(stem) and not _is_repository(stem):
        return None
    return _checkpoint(stem, kind) if os.path.isdir(stem) else repository(stem, kind)


def _is_repository(text: str) -> bool:
    """Whether it reads as `owner/name`, and not as a file that is not there."""
    from edgeq.checkpoints.hub import is_repository

    return "/" in text and is_repository(text) and not text.endswith(endings.MODEL)


def _gguf(text: str) -> Source:
    from edgeq.container.gguf_reader import open_gguf

    with open_gguf(text) as file:
        paths, nbytes = file.files, file.nbytes

    def make(target: Path, announce: Announce, progress: Progress) -> list[str]:
        return _imported(paths[0], target, announce, progress)

    size = f" ({nbytes / 1e6:.0f} MB)"
    place = real_path(paths[0])
    state = _state(paths)
    return Source(str(paths[0]), place, _name(paths[0].stem), place, state, "import", size, lambda _: None, make)


def _seeing(text: str, source: Source | None, mmproj: str) -> Source | None:
    """A GGUF file with that of what it sees with: another file than the one made of the text model alone."""
    from edgeq.container.gguf_reader import open_gguf

    if source is None and not os.path.lexists(text):
        return None  # for others to say
    if source is None or not is_gguf(text):
        raise UsageError(f"{text}: is no GGUF file, and what sees comes beside such a file only: leave out --mmproj")
    with open_gguf(mmproj) as file:
        real, state = real_path(file.files[0]), _state(file.files)

    def make(target: Path, announce: Announce, progress: Progress) -> list[str]:
        return _imported(Path(source.text), target, announce, progress, real)

    name, place, state = f"{source.name}-mmproj", f"{source.place} with {real}", f"{source.state}\n{state}"
    return replace(source, name=name, place=place, state=state, make=make, mmproj=real)


def _checkpoint(text: str, kind: str | None = None) -> Source:
    real = real_path(text)
    inside = real if os.path.isdir(real) else os.path.dirname(real)

    def fetch(announce: Announce) -> None:
        from edgeq.checkpoints.checkpoint import open_checkpoint

        open_checkpoint(text).close()

    def make(target: Path, announce: Announce, progress: Progress) -> list[str]:
        from edgeq.conversion.conversion import convert

        return convert(text, target, kind, progress=_of_tensors(progress), announce=announce).notes

    try:
        state = _state(sorted(_files(Path(inside))))
    except OSError as error:
        raise CheckpointError(f"{text}: cannot be read: {error.strerror}: check its permissions") from None
    source = Source(text, real, _name(os.path.basename(inside)), real, state, "convert", "", fetch, make)
    return _of_kind(source, kind)


def repository(text: str, kind: str | None = None) -> Source:
    """A repository of the Hub, whatever has its name here."""
    fetched: list[Path] = []  # the GGUF file, of a repository that has one, and that of what it sees with

    def fetch(announce: Announce) -> None:
        from edgeq.checkpoints.checkpoint import open_checkpoint
        from edgeq.checkpoints.hub import fetch_gguf, fetch_mmproj
        from edgeq.gguf.import_images import might_see

        if announce:
            announce(f"fetching {text} from the Hub")
        gguf = fetch_gguf(text, kind)
        if gguf is None:
            open_checkpoint(text).close()
        else:
            fetched.append(gguf)
            if might_see(gguf) and (mmproj := fetch_mmproj(text)):
                fetched.append(mmproj)

    def make(target: Path, announce: Announce, progress: Progress) -> list[str]:
        from edgeq.conversion.conversion import convert

        if len(fetched) > 1:
            try:
                return _imported(fetched[0], target, announce, progress, fetched[1])
            except (FormatError, UnsupportedError) as error:  # nobody asked for it
                return [f"it reads text alone: {error}", *_imported(fetched[0], target, announce, progress)]
        if fetched:
            return _imported(fetched[0], target, announce, progress)
        return convert(text, target, kind, progress=_of_tensors(progress), announce=announce).notes

    source = Source(text, text, _name(text.replace("/", "-")), f"{text} of the Hub", "", "convert", "", fetch, make)
    return _of_kind(source, kind)


def _imported(
    gguf: Path, target: Path, announce: Announce, progress: Progress, mmproj: str | Path | None = None
) -> list[str]:
    from edgeq.gguf.importer import import_gguf

    return import_gguf(gguf, target, progress=_of_tensors(progress), announce=announce, mmproj=mmproj).notes


def _name(text: str) -> str:
    """A name for people that can be part of a file's."""
    return re.sub(r"[^\w.\-+ ]", "_", text)[:100] or "model"


def _of_kind(source: Source, kind: str | None) -> Source:
    """Each kind that is asked for stands by itself."""
    if kind is None:
        return source
    kind = kind.upper()
    return replace(source, name=f"{source.name}-{kind}", place=f"{source.place} as {kind}", kind=kind)


def _of_tensors(progress: Progress) -> Callable[[str, int, int, int, int], None] | None:
    """What converting and importing call, tensor by tensor."""
    if progress is None:
        return None
    return lambda tensor, index, tensors, done, total: progress(f"{index + 1}/{tensors} {tensor}", done, total)


def real_path(path: str | os.PathLike[str]) -> str:
    """The real path of a file's folder, and its own name there: of two links to one file each has neighbours of its
    own, which are read too."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _files(inside: Path) -> Iterator[Path]:
    """The files of a checkpoint's folder and of the folders in it, which hold what sentence-transformers adds."""
    for one in inside.iterdir():
        if _matters(one):
            yield one
        elif one.is_dir() and not one.name.startswith("."):
            yield from (nested for nested in one.iterdir() if _matters(nested))


def _matters(one: Path) -> bool:
    """Whether it is of a kind that is read: people keep notes there, and systems hidden files."""
    return one.is_file() and not one.name.startswith(".") and one.suffix in (*endings.CHECKPOINT, *SMALL)


def _state(files: Iterable[Path]) -> str:
    """The same, however the files are named."""
    stats = [(Path(real_path(one)), one.stat()) for one in files]
    return "\n".join(f"{one.parent.name}/{one.name} {stat.st_size} {stat.st_mtime_ns}" for one, stat in stats)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
