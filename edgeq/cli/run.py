"""`edgeq run`: answer one message, or complete a text."""

import contextlib
import os
import select
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.json_output import json_option_for, show_json
from edgeq.cli.model_argument import model_and_prompt
from edgeq.cli.options import IMAGES, PREFIX, check_text, load_model, sampling_options, show_timings, writing_options
from edgeq.cli.prefix import known
from edgeq.cli.thoughts import answered
from edgeq.engine.arguments import MOST_LOGPROBS
from edgeq.errors import EdgeqError, UsageError
from edgeq.system.input import read_text
from edgeq.system.json_input import parse_json
from edgeq.talk.grammar import check_there
from edgeq.text import template_process

if TYPE_CHECKING:
    from edgeq.engine.answer import Answer
    from edgeq.engine.model import Model


PATIENCE_S = 3.0  # a pipe that gives nothing so long may have been left open by mistake


def read_schema(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """What --schema says. UsageError for what is no object of JSON."""
    if value is None or value.strip() == "json":
        return None if value is None else {"type": "object"}
    inline = value.lstrip().startswith("{")
    where, text = ("--schema", value) if inline else (value, read_text(value))
    try:
        found = parse_json(text.encode())
    except ValueError as error:
        raise UsageError(f"{where}: is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{where}: is no JSON schema, which is an object")
    return found


@click.command("run")
@model_and_prompt
@click.option("--raw", is_flag=True, help="Complete the prompt as it is, also where the model has a chat template.")
@click.option("--chat", is_flag=True, help="Take the prompt as a chat message; what happens anyway, where it can.")
@click.option("--system", callback=check_text, help="The system message before it.")
@click.option("--echo", is_flag=True, help="Print the prompt before its completion.")
@json_option_for("Print one JSON object at the end: text, why it ended, counts, times.")
@click.option(
    "--logprobs",
    type=click.IntRange(0, MOST_LOGPROBS),
    help="With --json: each token's log-probability, and the likeliest.",
)
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr.")
@click.option(
    "-j",
    "--schema",
    "--json-schema",
    callback=read_schema,
    metavar="FILE|JSON",
    help='Have the answer follow a JSON schema, in a file or as it is; "json" is any JSON object.',
)
@PREFIX
@IMAGES
@sampling_options
@writing_options
def command(
    model: Path,
    prompt: str | None,
    raw: bool,
    chat: bool,
    system: str | None,
    echo: bool,
    as_json: bool,
    logprobs: int | None,
    timings: bool,
    schema: dict[str, Any] | None,
    prefix: Path | None,
    images: tuple[Path, ...],
    generation: dict[str, Any],
    loading: dict[str, Any],
) -> None:
    """Answer PROMPT with MODEL: an .eqf or .gguf file, a checkpoint's folder or a Hub repository (owner/name).

    What is no .eqf file is made into one, in the cache, the first time; owner/name:Q8_0 names the type.

    A model with a chat template gets PROMPT as a message and answers it; one without goes on writing, and so does any
    with --raw. What is piped in stands before PROMPT, or is the prompt where none is given, less one newline at its
    end. --image shows a model that sees what PROMPT is about.
    """
    if raw and (chat or system is not None):
        raise UsageError("--raw completes plain text, without a template: leave out --chat and --system, or --raw")
    if raw and images:
        raise UsageError("--raw completes plain text, in which no image stands: leave out --image, or --raw")
    if schema is not None:
        if raw:
            raise UsageError("--schema is followed in answers, which --raw gives none of: leave out one of the two")
        check_there("--schema")
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs needs --json, which prints them")
    text = _prompt(prompt)
    if not raw:
        template_process.begin()  # while the model is loaded
    with load_model(model, loading) as loaded:
        if prefix is not None:
            known_system, before = known(prefix, loaded)
            text = before + text
            if raw and known_system is not None:
                raise UsageError(f"{prefix}: is a system message, which --raw has none of: leave out one of the two")
            system = known_system if system is None else system
        if not (raw or images or text.strip()):
            raise UsageError("the prompt is empty: give it after the model, or pipe in a text")
        if not raw and (chat or system is not None or images or schema is not None or loaded.has_chat_template):
            if echo:
                raise UsageError("--echo prints a text that is completed: give --raw as well")
            messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system is not None else []
            messages.append({"role": "user", "content": _with_images(text, images)})
            answer: Answer = loaded.chat(messages, logprobs=logprobs, schema=schema, **generation)
        else:
            answer = loaded.generate(text, logprobs=logprobs, **generation)
        if as_json:
            show_json(describe(loaded, answer, text if echo else ""))
        else:
            _stream([text] if echo else [], answer)
        if timings:
            show_timings(answer.timings)


def describe(model: "Model", answer: "Answer", before: str = "") -> dict[str, Any]:
    """An answer, generated to its end, as plain data; times in seconds."""
    facts: dict[str, Any] = {
        "model": os.path.basename(model.file.path),
        "text": before + answer.text,
        **({"thinking": thinking} if (thinking := getattr(answer, "thinking", "")) else {}),
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "generated_tokens": len(answer.tokens),
        "timings": {
            **asdict(answer.timings),
            "prompt_rate": answer.timings.prompt_rate,
            "generation_rate": answer.timings.generation_rate,
        },
    }
    if answer.logprobs:
        facts["logprobs"] = [
            {**_token(model, noted.token, noted.logprob), "top": [_token(model, *one) for one in noted.top]}
            for noted in answer.logprobs
        ]
    return facts


def _token(model: "Model", token: int, logprob: float) -> dict[str, Any]:
    return {"id": token, "text": model.tokenizer.decode([token], special=True), "logprob": logprob}


def _stream(before: Iterable[str], answer: "Answer") -> None:
    """Write text as it comes. A line that has begun is ended, also where an error or Ctrl-C cuts the text short."""
    begun = False
    try:
        for pieces in (before, answered(answer)):
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
                begun = True
    except (EdgeqError, KeyboardInterrupt):
        if begun:
            click.echo()
        raise
    click.echo()
    if not answer.text.strip() and answer.finish_reason in NOTHING:
        click.echo(f"edgeq: the answer is empty: {NOTHING[answer.finish_reason]}", err=True)


NOTHING = {  # why an answer may hold no text, by its finish_reason
    "eos": "the model ended it at once: put it otherwise, or try --raw or another --system",
    "stop": "it began with a text of --stop",
    "max_tokens": "--max-tokens leaves room for none",
    "context": "the prompt fills the context: shorten it, or give a larger --context",
}


def _with_images(text: str, images: Sequence[Path]) -> str | list[Any]:
    """A message's content: its images, and what is asked of them."""
    parts = [{"type": "image", "image": path} for path in images]
    return [*parts, {"type": "text", "text": text}] if parts else text


def _prompt(prompt: str | None) -> str:
    """What the command line and stdin give together."""
    if prompt is None and sys.stdin.isatty():
        raise UsageError(
            'there is no prompt: give it after the model (edgeq run m.eqf "Hello"), or pipe it in; edgeq chat talks'
        )
    if prompt in (None, "-"):
        return _piped()
    if not _holds_text():
        return str(prompt)
    _warn_of_waiting()
    piped = _piped()
    return f"{piped}\n\n{prompt}" if piped else str(prompt)


def _holds_text() -> bool:
    """Whether stdin is a pipe or a file: something was meant to be read. A terminal or /dev/null is there by itself."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # no file of the system's: somebody's stand-in, whose end is known
        return not sys.stdin.isatty()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _warn_of_waiting() -> None:
    """Say so where a pipe neither gives anything nor ends: who started this may not know that it is read."""
    with contextlib.suppress(OSError, ValueError):  # no file that can be waited for
        if not select.select([sys.stdin.fileno()], [], [], PATIENCE_S)[0]:
            line = "waiting for what is piped in to end, as it belongs to the prompt (< /dev/null where nothing is)"
            click.echo(f"edgeq: {line}", err=True)


def _piped() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError("the prompt on stdin is not UTF-8 text: convert it to UTF-8") from error
    except OSError as error:
        raise UsageError(f"the prompt on stdin cannot be read: {error.strerror or error}") from error
