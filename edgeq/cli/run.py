"""`edgeq run`: complete a text, or answer one message."""

import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import click

from edgeq.cli.options import check_text, load_model, model_options, sampling_options, show_timings
from edgeq.errors import EdgeqError, UsageError


@click.command("run", short_help="Complete a text, or answer one message.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("prompt", required=False, callback=check_text)
@click.option("--chat", is_flag=True, help="Take the prompt as a chat message, through the model's chat template.")
@click.option("--system", callback=check_text, help="With --chat: the system message before it.")
@click.option("--echo", is_flag=True, help="Print the prompt before its completion.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr.")
@sampling_options
@model_options
def command(
    model: Path,
    prompt: str | None,
    chat: bool,
    system: str | None,
    echo: bool,
    timings: bool,
    generation: dict[str, Any],
    loading: dict[str, Any],
) -> None:
    """Complete PROMPT with MODEL: an .eqf or .gguf file, a checkpoint's folder or a Hub repository (owner/name).

    What is no .eqf file is made into one, in the cache, the first time; owner/name:Q8_0 names the type.

    Without PROMPT, or for "-", the prompt is what stdin gives, less one newline at its end.
    """
    if system is not None and not chat:
        raise UsageError("--system needs --chat: plain completion has no system message")
    text = _prompt(prompt)
    with load_model(model, loading) as loaded:
        if chat:
            messages = [{"role": "system", "content": system}] if system is not None else []
            pieces = loaded.chat([*messages, {"role": "user", "content": text}], **generation)
        else:
            pieces = loaded.generate(text, **generation)
        _stream(chain([text], pieces) if echo else pieces)
        if timings:
            show_timings(loaded.timings)


def _stream(pieces: Iterable[str]) -> None:
    """Write text as it comes. A line that has begun is ended, also where an error or Ctrl-C cuts the text short."""
    begun = False
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
            begun = True
    except (EdgeqError, KeyboardInterrupt):
        if begun:
            click.echo()
        raise
    click.echo()


def _prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise UsageError('there is no prompt: give it after the model, or pipe it in (e.g. edgeq run m.eqf "Hello")')
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError("the prompt on stdin is not UTF-8 text: convert it to UTF-8") from error
