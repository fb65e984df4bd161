"""What is run without having been converted: a GGUF file, a checkpoint, a repository of the Hub. Each is made into a
file in the user's cache once, and found there afterwards."""

import contextlib
import glob
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgeq import environment, model_names
from edgeq.errors import EdgeqError, OutputError, UsageError
from edgeq.model_sources import Announce, Progress, Source, real_path, source_of
from edgeq.output import remove_abandoned, write_file


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
    source = source_of(model_names.resolve(text))
    if source is None:
        return _named(text) if model_names.is_word(text) else text
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
    """The file in the cache that is called so, or by its source, or by the beginning of its name.

    Raises UsageError where several may be meant, NotFoundError for none.
    """
    every = cached()
    wanted = model_names.resolve(name)
    exact = [one for one in every if wanted in (one.name, one.source, str(one.path)) or real_path(wanted) == one.source]
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
        source = source_of(text if kind is None else f"{text}:{kind}")
    except (EdgeqError, OSError):
        return "its source cannot be read"
    if source is None:
        return "its source is no model any more"
    return "" if source.filename == path.name else "its source has changed, or edgeq has"


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


def _make(source: Source, target: Path, announce: Announce, progress: Progress) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    remove_abandoned(target.parent)  # by conversions that were killed, of sources that have changed since
    try:
        for note in source.make(target, announce, progress):
            if announce:
                announce(f"note: {note}")
    except OutputError as error:
        by_hand = f"`edgeq {source.verb} {source.text} -o FILE.eqf`"
        raise OutputError(f"{error}; or set EDGEQ_CACHE, or {by_hand} elsewhere") from None
    _write_note(target, source)
