"""`edgeq serve`: answer over HTTP."""

import socket
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq import environment
from edgeq.cli.announcer import Announcer, announce
from edgeq.cli.options import model_options, read_text
from edgeq.errors import UsageError
from edgeq.text import template_process

if TYPE_CHECKING:
    from edgeq.model import Model

NEEDED = ("starlette", "uvicorn", "h11", "msgspec")


@click.command("serve")
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Keys that clients need, one a line.")
@click.option("--no-auth", is_flag=True, help="Listen beyond this machine without a key.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this name too; may be repeated.")
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Let pages of this origin ask; * is any.")
@click.option("--embeddings", is_flag=True, default=None, help="Load the models only to embed texts.")
@click.option("--queue", type=click.IntRange(0), default=64, show_default=True, help="Requests that may wait.")
@click.option("--drain", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to end answers in.")
@click.option("--access-log", is_flag=True, help="A line for each request: never what it says.")
@model_options
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    no_auth: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    embeddings: bool | None,
    queue: int,
    drain: float,
    access_log: bool,
    loading: dict[str, Any],
) -> None:
    """Answer the clients of OpenAI's, Anthropic's and Ollama's APIs with each MODEL: an .eqf or .gguf file, a
    checkpoint's folder or a Hub repository. Clients name it as its file is called, or by NAME.

    EDGEQ_API_KEY holds a key that clients need, as --api-key-file does.
    """
    _check_installed()
    from edgeq.serve.guard import Rules, is_loopback
    from edgeq.serve.listening import open_socket, serve
    from edgeq.serve.roster import Roster

    keys = _keys(api_key_file)
    if not keys and not no_auth and not is_loopback(host):
        raise UsageError(f"--host {host} lets other machines ask: give --api-key-file (or EDGEQ_API_KEY), or --no-auth")
    loading = {**loading, "embeddings": bool(embeddings)}
    names = [*allow_host, host]
    if not is_loopback(host):
        names += [socket.gethostname(), f"{socket.gethostname()}.local"]
    template_process.begin()
    loaders = {name: partial(_load, path, loading) for name, path in _named(models).items()}
    serve(
        Roster(loaders, queue), Rules(names, allow_origin, keys), open_socket(host, port), announce, drain, access_log
    )


class _Teller(Announcer):
    """Announces, and tells clients how many kernels are compiled: no more, as lines name files."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def progress(self, done: int, total: int) -> None:
        super().progress(done, total)
        self._say(f"compiling kernels: {done} of {total}")


def _load(path: str, loading: dict[str, Any], say: Callable[[str], None]) -> "Model":
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


def _check_installed() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}, not installed here: pip install 'edgeq[serve]'")


def _keys(path: Path | None) -> list[str]:
    """Keys that clients may give, of the file and of the environment."""
    keys = [] if path is None else [line.strip() for line in read_text(path).splitlines()]
    keys = [key for key in keys if key and not key.startswith("#")]
    if path is not None and not keys:
        raise UsageError(f"{path}: holds no key: write one a line")
    own = environment.api_key()
    return [*keys, own] if own else keys


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """Name -> model. Raises UsageError for two of one name."""
    named: dict[str, str] = {}
    for text in models:
        name, given, path = text.partition("=")
        if not given or "/" in name or Path(text).exists():
            name, path = _name(text), text
        if name in named:
            raise UsageError(f"two models are called {name}: name one of them otherwise, NAME={path}")
        named[name] = path
    return named


def _name(path: str) -> str:
    """What clients call a model that was given no name: its file's, without what tells the format."""
    last = Path(path).name
    return last.removesuffix(".eqf").removesuffix(".gguf") or path
