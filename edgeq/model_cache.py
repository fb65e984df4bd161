"""What is run without having been converted: a GGUF file, a checkpoint, a repository of the Hub. Each is made into a
file in the user's cache once, and found there afterwards."""

import contextlib
import glob
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import environment, model_names
from edgeq.container.gguf_values import is_gguf
from edgeq.errors import CheckpointError, EdgeqError, OutputError, UsageError
from edgeq.output import remove_abandoned, write_file

REVISION = 4  # raised when what is made changes
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

Announce = Callable[[str], None] | None
Progress = Callable[[str, int, int], None] | None  # what is at work, bytes done, bytes in all


@dataclass(frozen=True)
class Source:
    """What becomes a file in the cache: `place` names it, `state` changes when its content does.

    `fetch(announce)` gets what is not here yet, and raises where nothing can be made of it; `make(target, announce,
    progress)` writes the file; `verb` is what that does, and also the command that does it by hand.
    """

    text: str
    origin: str  # an absolute path, or a repository
    name: str
    place: str
    state: str
    verb: str
    size: str
    fetch: Callable[[Announce], object]
    make: Callable[[Path, Announce, Progress], object]
    kind: str | None = None  # the recipe that was asked for

    @property
    def target(self) -> Path:
        """The file that it becomes."""
        return folder() / f"{self.name}-{_digest(self.place)}-{_digest(self.state, str(REVISION))}.eqf"


@dataclass(frozen=True)
class Cached:
    """A file in the cache.

    name    of the model, and its recipe where one was asked for
    source  a path, or a repository of the Hub
    recipe  that it was converted by; of what was imported the commonest type
    used    when it was run last, or made: seconds since 1970
    stale   why nobody will find it again, or empty
    """

    path: Path
    name: str
    source: str
    recipe: str
    nbytes: int
    used: float
    stale: str


def folder() -> Path:
    """Where the files are."""
    return environment.cache_folder() / "models"


def runnable(path: str | os.PathLike[str], announce: Announce = None, progress: Progress = None) -> str:
    """The `.eqf` file of `path`: itself; or for a GGUF file, a checkpoint's folder or weight file, or a repository
    `owner/name` of either, the one in the cache, which is made if need be. `folder:TYPE` and `owner/name:TYPE` ask for
    a recipe, or for the GGUF file of that type. So do short names, addresses and names of what is in the cache, see
    `model_names`.

    `announce` hears one line before a file is made, which says where, `progress` how far that is. The file belongs to
    its source's place, files, sizes and times; when these change it is made again and the old one removed. A repository
    is asked for once: afterwards no network is needed. Raises what `import_gguf` and `convert` do; OutputError also
    where the cache has no room, NotFoundError for a name that nothing has.
    """
    text = os.fspath(path)
    source = _source(model_names.resolve(text))
    if source is None:
        return _named(text) if model_names.is_word(text) else text
    target = source.target
    if target.exists():
        with contextlib.suppress(OSError):  # a cache that cannot be written is still there to be read
            os.utime(target)
        return str(target)
    began = time.time()
    source.fetch(announce)
    if announce:
        announce(f"{source.verb}ing {source.text}{source.size} once, as {target}")
    _make(source, target, announce, progress)
    for old in target.parent.glob(f"{glob.escape(source.name)}-{_digest(source.place)}-*.eqf"):
        with contextlib.suppress(OSError):
            if old != target and old.stat().st_mtime < began:  # else somebody has made a newer one meanwhile
                _unlink(old)
    return str(target)


def cached() -> list[Cached]:
    """What is in the cache, the latest used first. Only headers are read; files that are none are left out."""
    found = []
    for path in sorted(folder().glob("*.eqf")):
        with contextlib.suppress(EdgeqError, OSError):
            found.append(_describe(path))
    return sorted(found, key=lambda one: -one.used)


def named(name: str) -> Cached:
    """The file in the cache that is called so, or by its source, or by the beginning of its name.

    Raises UsageError where several may be meant, NotFoundError for none.
    """
    every = cached()
    wanted = model_names.resolve(name)
    exact = [one for one in every if wanted in (one.name, one.source, str(one.path)) or _realpath(wanted) == one.source]
    if not exact:
        found = model_names.among(name, (one.name for one in every))
        exact = [one for one in every if one.name == found]
    if not exact:
        raise model_names.unknown(name, [one.name for one in every])
    if len(exact) > 1:
        paths = ", ".join(str(one.path) for one in exact)
        raise UsageError(f"{name}: is the name of several files: give the path of one: {paths}")
    return exact[0]


def remove(one: Cached) -> None:
    """Remove a file from the cache. Raises OutputError where that cannot be done."""
    try:
        _unlink(one.path)
    except OSError as error:
        raise OutputError(f"{one.path}: cannot be removed: {error.strerror}: check its folder's permissions") from None


def _unlink(path: Path) -> None:
    path.unlink()
    _note(path).unlink(missing_ok=True)


def _named(text: str) -> str:
    """The path of what is in the cache under a name, used now."""
    found = named(text)
    with contextlib.suppress(OSError):
        os.utime(found.path)
    return str(found.path)


def _describe(path: Path) -> Cached:
    from edgeq.container.reader import open_file
    from edgeq.quantize.recipes import RECIPES

    with open_file(path) as file:
        provenance, nbytes = file.metadata.get("provenance", {}), file.nbytes
        recipe = str(provenance.get("recipe", ""))
        if recipe not in RECIPES:  # imported: by the type that most bytes are of
            sizes = Counter[str]()
            for tensor in file.tensors.values():
                sizes[tensor.type] += tensor.nbytes
            recipe = max(sizes, key=sizes.__getitem__)
    note = _read_note(path)
    source = str(note.get("source") or provenance.get("source", ""))
    return Cached(
        path=path,
        name=path.stem.rsplit("-", 2)[0],
        source=source,
        recipe=recipe,
        nbytes=nbytes,
        used=path.stat().st_mtime,
        stale=_stale(path, str(note["source"]), note.get("type")) if "source" in note else "",
    )


def _stale(path: Path, text: str, kind: str | None) -> str:
    """Why a file made of `text` is never found again; empty where it is."""
    if os.path.isabs(text) and not os.path.exists(text):
        return "its source is gone"
    try:
        source = _source(text if kind is None else f"{text}:{kind}")
    except (EdgeqError, OSError):
        return "its source cannot be read"
    if source is None:
        return "its source is no model any more"
    return "" if source.target == path else "its source has changed, or edgeq has"


def _note(path: Path) -> Path:
    """The small file beside a model's that says what it was made of."""
    return path.with_suffix(".json")


def _read_note(path: Path) -> dict[str, str | None]:
    try:
        found = json.loads(_note(path).read_bytes())
    except (OSError, ValueError):  # made by an earlier version, or by hand
        return {}
    return found if isinstance(found, dict) else {}


def _write_note(path: Path, source: Source) -> None:
    with contextlib.suppress(OutputError):  # the model itself runs without
        text = json.dumps({"source": source.origin, "type": source.kind}, indent=2)
        write_file(_note(path), f"{text}\n".encode())


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

    def make(target: Path, announce: Announce, progress: Progress) -> None:
        from edgeq.gguf.importer import import_gguf

        import_gguf(paths[0], target, progress=_of_tensors(progress), announce=announce)

    size = f" ({nbytes / 1e6:.0f} MB)"
    place = _realpath(paths[0])
    return Source(
        str(paths[0]), place, _name(paths[0].stem), place, _state(paths), "import", size, lambda _: None, make
    )


def _checkpoint(text: str, kind: str | None = None) -> Source:
    real = _realpath(text)
    inside = real if os.path.isdir(real) else os.path.dirname(real)

    def fetch(announce: Announce) -> None:
        from edgeq.checkpoints.checkpoint import open_checkpoint

        open_checkpoint(text).close()

    def make(target: Path, announce: Announce, progress: Progress) -> None:
        from edgeq.conversion import convert

        convert(text, target, kind, progress=_of_tensors(progress), announce=announce)

    try:
        state = _state(sorted(_files(Path(inside))))
    except OSError as error:
        raise CheckpointError(f"{text}: cannot be read: {error.strerror}: check its permissions") from None
    source = Source(text, real, _name(os.path.basename(inside)), real, state, "convert", "", fetch, make)
    return _of_kind(source, kind)


def _repository(text: str, kind: str | None = None) -> Source:
    fetched: list[Path] = []  # the GGUF file, of a repository that has one

    def fetch(announce: Announce) -> None:
        from edgeq.checkpoints.checkpoint import open_checkpoint
        from edgeq.checkpoints.hub import fetch_gguf

        if announce:
            announce(f"fetching {text} from the Hub")
        gguf = fetch_gguf(text, kind)
        if gguf is None:
            open_checkpoint(text).close()
        else:
            fetched.append(gguf)

    def make(target: Path, announce: Announce, progress: Progress) -> None:
        from edgeq.conversion import convert
        from edgeq.gguf.importer import import_gguf

        if fetched:
            import_gguf(fetched[0], target, progress=_of_tensors(progress), announce=announce)
        else:
            convert(text, target, kind, progress=_of_tensors(progress), announce=announce)

    source = Source(text, text, _name(text.replace("/", "-")), f"{text} of the Hub", "", "convert", "", fetch, make)
    return _of_kind(source, kind)


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


def _realpath(path: str | os.PathLike[str]) -> str:
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
    """Not what edgeq itself may have written there."""
    return one.is_file() and one.suffix not in (".eqf", ".gguf", ".tmp")


def _state(files: Iterable[Path]) -> str:
    stats = [(one, one.stat()) for one in files]
    return "\n".join(f"{one.parent.name}/{one.name} {stat.st_size} {stat.st_mtime_ns}" for one, stat in stats)


def _make(source: Source, target: Path, announce: Announce, progress: Progress) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    remove_abandoned(target.parent)  # by conversions that were killed, of sources that have changed since
    try:
        source.make(target, announce, progress)
    except OutputError as error:
        by_hand = f"`edgeq {source.verb} {source.text} -o FILE.eqf`"
        raise OutputError(f"{error}; or set EDGEQ_CACHE, or {by_hand} elsewhere") from None
    _write_note(target, source)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
