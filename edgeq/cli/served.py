"""The models that a server, or a batch, answers with: named and loaded."""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.cli.announcer import Announcer
from edgeq.cli.options import read_text
from edgeq.errors import NotFoundError, UsageError
from edgeq.store import model_cache, model_names

if TYPE_CHECKING:
    from edgeq.engine.model import Model
    from edgeq.serve.roster import Loader, Tell

NEEDED = ("starlette", "uvicorn", "h11", "msgspec")


def check_installed() -> None:
    """Raise UsageError where a package that serving needs is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}, not installed here: pip install 'edgeq[serve]'")


def named(models: tuple[str, ...]) -> dict[str, str]:
    """Name -> model. Raises UsageError for two of one name."""
    found: dict[str, str] = {}
    for text in models:
        name, given, path = text.partition("=")
        if not given or "/" in name or Path(text).exists():
            name, path = model_names.called(text), text
        if name in found:
            raise UsageError(f"two models are called {name}: name one of them otherwise, NAME={path}")
        found[name] = path
    return found


class _Teller(Announcer):
    """Announces, and tells clients how many kernels are compiled: no more, as lines name files."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def progress(self, done: int, total: int) -> None:
        super().progress(done, total)
        self._say(f"compiling kernels: {done} of {total}")


def load_served(path: str, loading: dict[str, Any], say: Callable[[str], None]) -> "Model":
    """The model, loaded as the options say; `say` hears how far it is."""
    from edgeq.loading import load

    template = loading.get("template")
    others = {name: value for name, value in loading.items() if name not in ("template", "preload")}
    model = load(
        path,
        **others,
        chat_template=None if template is None else read_text(template),
        announce=_Teller(say),
        progress=lambda what, done, total: say(f"converting: {done / max(total, 1):.0%}"),
    )
    if loading.get("preload"):
        model.file.read_through(lambda done, total: say(f"reading: {done / max(total, 1):.0%}"))
    return model


class Pulled:
    """The models in the cache: what clients may have fetched into it, where the server lets them."""

    def __init__(self, loading: dict[str, Any]) -> None:
        self._loading = loading

    def loaders(self) -> "dict[str, Loader]":
        """By name, what is there; the latest used where two have one."""
        found: dict[str, Loader] = {}
        for one in model_cache.cached():
            found.setdefault(one.name, self._loader(str(one.path)))
        return found

    def fetch(self, name: str, tell: "Tell") -> "Loader":
        """Make a file of a repository, or of what a short name means. Raises NotFoundError for names of this machine's
        files, too."""
        wanted = model_names.resolve(name)
        if os.path.lexists(wanted) or os.path.lexists(name) or "/" not in wanted:
            raise NotFoundError(f"{name}: is no repository's name")

        def progress(what: str, done: int, total: int) -> None:
            tell(what, done, total)

        return self._loader(model_cache.runnable(name, tell, progress))

    def remove(self, name: str) -> None:
        """Remove the file from the cache."""
        model_cache.remove(model_cache.named(name))

    def _loader(self, path: str) -> "Loader":
        return partial(load_served, path, self._loading)
