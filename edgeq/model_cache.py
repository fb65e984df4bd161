"""What is run without having been converted: a GGUF file, a checkpoint, a repository of the Hub. Each is made into a
file in the user's cache once, and found there afterwards."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import environment
from edgeq.container.gguf_values import is_gguf
from edgeq.errors import OutputError
from edgeq.output import remove_abandoned

REVISION = 3  # raised when what is made changes
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

Announce = Callable[[str], None] | None


@dataclass(frozen=True)
class Source:
    """What becomes a file in the cache: `place` names it, `state` changes when its content does.

    `make(target, announce)` writes the file; `verb` is what that does, and also the command that does it by hand.
    """

    text: str
    name: str
    place: str
    state: str
    verb: str
    size: str
    make: Callable[[Path, Announce], object]


def runnable(path: str | os.PathLike[str], announce: Announce = None) -> str:
    """The `.eqf` file of `path`: itself; or for a GGUF file, a checkpoint's folder or weight file, or a repository
    `owner/name` of either, the one in the cache, which is made if need be. `folder:TYPE` and `owner/name:TYPE` ask for
    a recipe, or for the GGUF file of that type.

    `announce` hears one line before a file is made, which says where. It belongs to its source's place, files, sizes
    and times; when these change it is made again and the old one removed. A repository is asked for once: afterwards
    no network is needed. Raises what `import_gguf` and `convert` do; OutputError also where the cache has no room.
    """
    text = os.fspath(path)
    source = _source(text)
    if source is None:
        return text
    folder = environment.cache_folder() / "models"
    place = _digest(source.place)
    target = folder / f"{source.name}-{place}-{_digest(source.state, str(REVISION))}.eqf"
    if not target.exists():
        if announce:
            announce(f"{source.verb}ing {source.text}{source.size} once, as {target}")
        _make(source, target, announce)
        for old in folder.glob(f"*-{place}-*.eqf"):
            if old != target:
                with contextlib.suppress(OSError):
                    old.unlink()
    return str(target)


def _source(text: str) -> Source | None:
    """What must be made into a file first; None for anything else, an `.eqf` file above all."""
    if is_gguf(text):
        return _gguf(text)
    if os.path.exists(text):
        return _checkpoint(text) if os.path.isdir(text) or text.endswith(WEIGHTS) else None
    stem, colon, kind = text.rpartition(":")
    if not colon:
        return _repository(text) if _is_repository(text) else None
    if not os.path.isdir(stem) and not _is_repository(stem):
        return None
    return _checkpoint(stem, kind) if os.path.isdir(stem) else _repository(stem, kind)


def _is_repository(text: str) -> bool:
    """Whether it reads as `owner/name`, and not as a file that is not there."""
    from edgeq.checkpoints.hub import is_repository

    return "/" in text and is_repository(text) and not text.endswith((".eqf", ".gguf", *WEIGHTS))


def _gguf(text: str) -> Source:
    from edgeq.container.gguf_reader import open_gguf

    with open_gguf(text) as file:
        paths, nbytes = file.files, file.nbytes

    def make(target: Path, announce: Announce) -> None:
        from edgeq.gguf.importer import import_gguf

        import_gguf(paths[0], target, announce=announce)

    size = f" ({nbytes / 1e6:.0f} MB)"
    return Source(str(paths[0]), paths[0].stem, os.path.realpath(paths[0]), _state(paths), "import", size, make)


def _checkpoint(text: str, kind: str | None = None) -> Source:
    real = Path(os.path.realpath(text))
    folder = real if real.is_dir() else real.parent
    state = _state(sorted(one for one in folder.iterdir() if one.is_file()))

    def make(target: Path, announce: Announce) -> None:
        from edgeq.conversion import convert

        convert(text, target, kind, announce=announce)

    return _of_kind(Source(text, folder.name, str(real), state, "convert", "", make), kind)


def _repository(text: str, kind: str | None = None) -> Source:
    def make(target: Path, announce: Announce) -> None:
        from edgeq.checkpoints.hub import fetch_gguf
        from edgeq.conversion import convert
        from edgeq.gguf.importer import import_gguf

        gguf = fetch_gguf(text, kind)
        if gguf is None:
            convert(text, target, kind, announce=announce)
        else:
            import_gguf(gguf, target, announce=announce)

    source = Source(text, text.replace("/", "-"), f"{text} of the Hub", "", "convert", "", make)
    return _of_kind(source, kind)


def _of_kind(source: Source, kind: str | None) -> Source:
    """Each kind that is asked for stands by itself."""
    if kind is None:
        return source
    kind = kind.upper()
    return replace(source, name=f"{source.name}-{kind}", place=f"{source.place} as {kind}")


def _state(files: Iterable[Path]) -> str:
    stats = [(one.name, one.stat()) for one in files]
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _make(source: Source, target: Path, announce: Announce) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    remove_abandoned(target.parent)  # by conversions that were killed, of sources that have changed since
    try:
        source.make(target, announce)
    except OutputError as error:
        by_hand = f"`edgeq {source.verb} {source.text} -o FILE.eqf`"
        raise OutputError(f"{error}; or set EDGEQ_CACHE, or {by_hand} elsewhere") from None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
