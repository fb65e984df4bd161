"""What is run without having been converted: a GGUF file, a checkpoint, a repository of the Hub. Each is made into a
file in the user's cache once, and found there afterwards."""

import contextlib
import glob
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import EdgeqError, OutputError, UsageError
from edgeq.store import model_names
from edgeq.store.model_sources import Announce, Progress, Source, real_path, repository, source_of
from edgeq.system import environment
from edgeq.system.input import read_bytes
from edgeq.system.json_input import parse_json
from edgeq.system.output import make_folder, remove_abandoned, write_file


@dataclass(frozen=True)
class Cached:
    """A file in the cache.

    name    of the model, and its recipe where one was asked for
    source  a path, or a repository of the Hub
    recipe  that it was converted by; of what was imported the commonest type
    used    when it was run last, or made: seconds since 1970
    remark  what became of its source, or empty
    stale   whether its source would be made into another file now: this one is found by its name alone
    """

    path: Path
    name: str
    source: str
    recipe: str
    nbytes: int
    used: float
    remark: str
    stale: bool


def folder() -> Path:
    """Where the files are."""
    return environment.cache_folder() / "models"


def runnable(
    path: str | os.PathLike[str],
    announce: Announce = None,
    progress: Progress = None,
    mmproj: str | os.PathLike[str] | None = None,
) -> str:
    """The `.eqf` file of `path`: itself; or for a GGUF file, a checkpoint's folder or weight file, or a repository
    `owner/name` of either, the one in the cache, which is made if need be. `folder:TYPE` and `owner/name:TYPE` ask for
    a recipe, or for the GGUF file of that type. So do short names, addresses and names of what is in the cache, see
    `model_names`. `mmproj` is a GGUF file of what the model of a GGUF file sees with.

    `announce` hears one line before a file is made, which says where, `progress` how far that is. The file belongs to
    its source's place, files, sizes and times; when these change it is made again and the old one removed. A repository
    is asked for once: afterwards no network is needed. Raises what `import_gguf` and `convert` do; OutputError also
    where the cache has no room, NotFoundError for a name that nothing has, UsageError for an `mmproj` of anything but a
    GGUF file.
    """
    text = os.fspath(path)
    # Before a short name, which would fetch another one
    if mmproj is None and model_names.is_word(text) and (found := _in_cache(text)):
        return found
    source = source_of(model_names.resolve(text), None if mmproj is None else os.fspath(mmproj))
    if source is None:
        if model_names.is_word(text):
            raise model_names.unknown(text, [one.name for one in cached()])
        return text
    target = folder() / source.filename
    if target.exists():
        with contextlib.suppress(OSError):  # a cache that cannot be written is still there to be read
            os.utime(target)
        return str(target)
    began = time.time()
    source.fetch(announce)
    if announce:
        announce(f"{source.verb}ing {source.text}{source.size} once, as {target}")
    _make(source, target, announce, progress)
    for old in target.parent.glob(f"{glob.escape(source.beginning)}*.eqf"):
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
    """The file in the cache that is called so, or made of what is called so.

    Raises UsageError where several are, NotFoundError where none is: the beginning of a name is not enough.
    """
    every, wanted = cached(), model_names.resolve(name)
    found = [one for one in every if {name, wanted, real_path(wanted)} & {one.name, one.source, str(one.path)}]
    if not found:
        raise model_names.unknown(name, [one.name for one in every])
    if len(found) > 1:
        paths = ", ".join(str(one.path) for one in found)
        raise UsageError(f"{name}: is the name of several files: give the path of one: {paths}")
    return found[0]


def remove(one: Cached) -> None:
    """Remove a file from the cache. Raises OutputError where that cannot be done."""
    try:
        _unlink(one.path)
    except OSError as error:
        raise OutputError(f"{one.path}: cannot be removed: {error.strerror}: check its folder's permissions") from None


def _unlink(path: Path) -> None:
    path.unlink()
    _note(path).unlink(missing_ok=True)


def _in_cache(text: str) -> str | None:
    """The path of the one whose name is or begins with `text`, used now; None where a short name says more.

    Raises UsageError where several begin so and it is no short name.
    """
    every = cached()
    try:
        found = model_names.among(text, (one.name for one in every))
    except UsageError:
        if model_names.resolve(text) != text:
            return None
        raise
    if found is None:
        return None
    path = next(one.path for one in every if one.name == found)  # the latest used, where two have that name
    with contextlib.suppress(OSError):
        os.utime(path)
    return str(path)


def _describe(path: Path) -> Cached:
    from edgeq.container.reader import open_file

    with open_file(path) as file:
        provenance, nbytes, recipe = file.metadata.get("provenance", {}), file.nbytes, file.recipe
    note = _read_note(path)
    origin = note.get("source")
    remark, stale = _remark(path, origin, note.get("type"), note.get("mmproj")) if origin else ("", False)
    return Cached(
        path=path,
        name=path.stem.rsplit("-", 2)[0],
        source=str(origin or provenance.get("source", "")),
        recipe=recipe,
        nbytes=nbytes,
        used=path.stat().st_mtime,
        remark=remark,
        stale=stale,
    )


def _remark(path: Path, origin: str, kind: str | None, mmproj: str | None) -> tuple[str, bool]:
    """What became of the source of a file, and whether another file would be made of it now."""
    try:
        if not os.path.isabs(origin):
            source: Source | None = repository(origin, kind)
        elif not all(os.path.exists(one) for one in (origin, mmproj) if one is not None):
            return "its source is gone", False  # this may be all that is left of it
        else:
            source = source_of(origin if kind is None else f"{origin}:{kind}", mmproj)
    except (EdgeqError, OSError):
        return "its source cannot be read", False
    if source is None or source.filename == path.name:
        return "", False
    return "its source has changed, or edgeq has", True


def _note(path: Path) -> Path:
    """The small file beside a model's that says what it was made of."""
    return path.with_suffix(".json")


def _read_note(path: Path) -> dict[str, str | None]:
    try:
        found = parse_json(read_bytes(_note(path)))
    except (OSError, ValueError):  # made by an earlier version, or by hand
        return {}
    found = found if isinstance(found, dict) else {}
    return {key: value if isinstance(value, str) else None for key, value in found.items()}


def _write_note(path: Path, source: Source) -> None:
    with contextlib.suppress(OutputError):  # the model itself runs without
        text = json.dumps({"source": source.origin, "type": source.kind, "mmproj": source.mmproj}, indent=2)
        write_file(_note(path), f"{text}\n".encode())


def _make(source: Source, target: Path, announce: Announce, progress: Progress) -> None:
    try:
        make_folder(target.parent)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    remove_abandoned(target.parent)  # by conversions that were killed, of sources that have changed since
    try:
        for note in source.make(target, announce, progress):
            if announce:
                announce(f"note: {note}")
    except OutputError as error:
        beside = "" if source.mmproj is None else f" --mmproj {source.mmproj}"
        by_hand = f"`edgeq {source.verb} {source.text}{beside} -o FILE.eqf`"
        raise OutputError(f"{error}; or set EDGEQ_CACHE, or {by_hand} elsewhere") from None
    _write_note(target, source)
