"""GGUF files that are run as they are: each is imported once, into the user's cache, and found there afterwards."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from edgeq import environment
from edgeq.container.gguf_values import is_gguf
from edgeq.errors import OutputError

REVISION = 2  # raised when imported files change


def runnable(path: str | os.PathLike[str], announce: Callable[[str], None] | None = None) -> str:
    """The `.eqf` file of `path`: itself, or for a GGUF file the one in the cache, which is made if need be.

    `announce` hears one line before an import, which says where. An import belongs to the files' place, sizes and
    times; when these change it is made again and the old one removed. Raises what `import_gguf` does; OutputError
    also where the cache has no room.
    """
    if not is_gguf(path):
        return os.fspath(path)
    from edgeq.container.gguf_reader import open_gguf

    with open_gguf(path) as file:
        paths, nbytes = file.files, file.nbytes
    folder = environment.cache_folder() / "models"
    place = _digest(os.path.realpath(paths[0]))
    stats = [one.stat() for one in paths]
    state = _digest(*(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats), str(REVISION))
    target = folder / f"{paths[0].stem}-{place}-{state}.eqf"
    if not target.exists():
        if announce:
            announce(f"importing {paths[0]} ({nbytes / 1e6:.0f} MB) once, as {target}")
        _make(paths[0], target, announce)
        for old in folder.glob(f"*-{place}-*.eqf"):
            if old != target:
                with contextlib.suppress(OSError):
                    old.unlink()
    return str(target)


def _make(path: Path, target: Path, announce: Callable[[str], None] | None) -> None:
    from edgeq.gguf.importer import import_gguf

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    try:
        import_gguf(path, target, announce=announce)
    except OutputError as error:
        raise OutputError(f"{error}; or set EDGEQ_CACHE, or `edgeq import {path} -o FILE.eqf` elsewhere") from None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
