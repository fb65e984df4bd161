"""`edgeq serve`: answer over HTTP."""

import socket
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeq.cli.announcer import announce
from edgeq.cli.options import read_text, writing_options
from edgeq.cli.served import Pulled, check_installed, load_served, named
from edgeq.errors import UsageError
from edgeq.system import environment
from edgeq.text import template_process


@click.command("serve")
@click.argument("models", nargs=-1, metavar="[NAME=]MODEL...")
@click.option(
    "-m", "--model", "by_name", multiple=True, metavar="[NAME=]MODEL", help="A MODEL, as the argument; may be repeated."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Keys that clients need, one a line.")
@click.option("--no-auth", is_flag=True, help="Listen beyond this machine without a key.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this name too; may be repeated.")
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Let pages of this origin ask; * is any.")
@click.option("--embeddings", is_flag=True, default=None, help="Load the models only to embed texts.")
@click.option("--queue", type=click.IntRange(0), default=64, show_default=True, help="Requests that may wait.")
@click.option("--drain", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to end answers in.")
@click.option(
    "--keep-alive", default="-1", show_default=True, help="How long a model stays unasked: 5m, 0, -1: always."
)
@click.option("--memory", type=click.IntRange(1), help="MiB that models take together.  [default: what is available]")
@click.option(
    "--allow-pull", is_flag=True, help="Serve what is in the cache, too; clients may fetch models into it, and delete."
)
@click.option("--access-log", is_flag=True, help="A line for each request: never what it says.")
@writing_options
def command(
    models: tuple[str, ...],
    by_name: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    no_auth: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    embeddings: bool | None,
    queue: int,
    drain: float,
    keep_alive: str,
    memory: int | None,
    allow_pull: bool,
    access_log: bool,
    loading: dict[str, Any],
) -> None:
    """Answer the clients of OpenAI's, Anthropic's and Ollama's APIs with each MODEL: an .eqf or .gguf file, a
    checkpoint's folder or a Hub repository. Clients name it as its file is called, or by NAME. The first is loaded at
    once, each other one when it is first asked for; those that nobody asks give way where memory is short.

    EDGEQ_API_KEY holds a key that clients need, as --api-key-file does.
    """
    models = (*models, *by_name)
    if not models:
        raise click.UsageError("Missing argument '[NAME=]MODEL...'.", click.get_current_context())
    if "mmproj" in loading and (len(models) > 1 or allow_pull):
        raise UsageError("--mmproj belongs to one model: serve it alone, or let `edgeq import` make one file of both")
    check_installed()
    from edgeq.runtime.fit import available_memory
    from edgeq.serve.guard import Rules, is_loopback
    from edgeq.serve.listening import open_socket, serve
    from edgeq.serve.roster import Roster
    from edgeq.serve.systemd import passed_socket

    listening = passed_socket()
    if listening is not None:
        place = listening.getsockname()
        host = place[0] if isinstance(place, tuple) else "localhost"  # a file, which its rights protect
    keys = _keys(api_key_file)
    if not keys and not no_auth and not is_loopback(host):
        raise UsageError(f"--host {host} lets other machines ask: give --api-key-file (or EDGEQ_API_KEY), or --no-auth")
    loading = {**loading, "embeddings": bool(embeddings)}
    names = [*allow_host, host]
    if not is_loopback(host):
        names += [socket.gethostname(), f"{socket.gethostname()}.local"]
    template_process.begin()
    loaders = {name: partial(load_served, path, loading) for name, path in named(models).items()}
    budget = available_memory() if memory is None else memory << 20
    library = Pulled(loading) if allow_pull else None
    there = library.loaders() if library else None
    roster = Roster(loaders, queue, budget=budget, keep_s=_seconds(keep_alive), library=library, in_library=there)
    listening = listening or open_socket(host, port)
    serve(roster, Rules(names, allow_origin, keys), listening, announce, drain, access_log)


def _seconds(keep_alive: str) -> float:
    from edgeq.serve.keep_alive import seconds

    try:
        return seconds(keep_alive)
    except ValueError:
        raise UsageError(f"--keep-alive is {keep_alive!r}: give a time like 5m or 90s, 0, or -1 for always") from None


def _keys(path: Path | None) -> list[str]:
    """Keys that clients may give, of the file and of the environment."""
    keys = [] if path is None else [line.strip() for line in read_text(path).splitlines()]
    keys = [key for key in keys if key and not key.startswith("#")]
    if path is not None and not keys:
        raise UsageError(f"{path}: holds no key: write one a line")
    own = environment.api_key()
    return [*keys, own] if own else keys
