"""`edgeq chat`: a conversation in the terminal."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.options import check_text, load_model, model_options, sampling_options, show_timings
from edgeq.cli.units import count
from edgeq.errors import ContextError, EdgeqError, OutputError, TemplateError, UsageError
from edgeq.output import write_file

if TYPE_CHECKING:
    from edgeq.model import Model

HELP = """\
/help          this list
/reset         forget the conversation
/system TEXT   set the system message and forget the conversation; without TEXT, drop it
/save FILE     write the conversation as JSON
/exit          leave (so does Ctrl-D)
Ctrl-C stops an answer; twice at an empty prompt it leaves. A line that ends with \\ goes on in the next one."""


@click.command("chat", short_help="Talk with a model.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--system", callback=check_text, help="The system message.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr after each answer.")
@sampling_options
@model_options
def command(
    model: Path, system: str | None, timings: bool, generation: dict[str, Any], loading: dict[str, Any]
) -> None:
    """Talk with MODEL: an .eqf or .gguf file, a checkpoint's folder or a Hub repository (owner/name).

    It needs a chat template. /help lists what else can be typed.
    """
    with load_model(model, loading) as loaded:
        _ = loaded.chat_template  # a model that cannot chat says so now, not after the first message
        Conversation(loaded, system, generation, timings).talk()


class Conversation:
    """Reads messages, streams answers, keeps the history."""

    def __init__(self, model: "Model", system: str | None, generation: dict[str, Any], timings: bool):
        self._model = model
        self._generation = generation
        self._timings = timings
        self._interactive = sys.stdin.isatty()
        self.system = system
        self.messages: list[dict[str, str]] = []
        self._dropped = 0  # the oldest messages, which the model no longer sees
        self._interrupted = False  # the latest thing typed was Ctrl-C

    def talk(self) -> None:
        """Go on until /exit or the end of the input."""
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives input() a line editor and a history)
            click.echo(f"{banner(self._model)}\n/help lists commands.", err=True)
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line.strip():
                self._answer(line)

    def _read(self) -> str | None:
        """One message; None at the end of the input. Ctrl-C drops what was typed, and leaves the second time."""
        lines: list[str] = []
        while True:
            try:
                line = input(("> " if not lines else ". ") if self._interactive else "")
            except EOFError:
                if self._interactive:
                    click.echo("", err=True)
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                if self._interrupted:
                    raise
                self._interrupted = True
                click.echo("\n/exit, Ctrl-D or another Ctrl-C leaves", err=True)
                return ""
            except UnicodeDecodeError as error:
                raise UsageError("the messages on stdin are not UTF-8 text: convert them to UTF-8") from error
            self._interrupted = False
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _obey(self, line: str) -> bool:
        """Do what a /command says; False to leave."""
        name, _, rest = line.partition(" ")
        name, rest = name.lower(), rest.strip()
        if name in ("/exit", "/quit"):
            return False
        if name == "/reset":
            self._forget()
            click.echo("(the conversation is forgotten)", err=True)
        elif name == "/system":
            self.system = rest or None
            self._forget()
            done = "set" if rest else "dropped"
            click.echo(f"(the system message is {done}, the conversation forgotten)", err=True)
        elif name == "/save":
            self._save(rest)
        elif name == "/help":
            click.echo(HELP)
        else:
            click.echo(f"{line}: no such command; /help lists them", err=True)
        return True

    def _forget(self) -> None:
        self.messages.clear()
        self._dropped = 0

    def _save(self, name: str) -> None:
        if not name:
            click.echo("usage: /save FILE", err=True)
            return
        path = Path(os.path.expanduser(name))
        try:
            save(self.history(), path)
        except OutputError as error:
            click.echo(str(error), err=True)
        else:
            click.echo(f"({path}: {len(self.history())} messages saved)", err=True)

    def history(self, first: int = 0) -> list[dict[str, str]]:
        """The conversation from message `first` on, after the system message if there is one."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return system + self.messages[first:]

    def _answer(self, text: str) -> None:
        """Stream the answer to a message; Ctrl-C keeps what was said so far."""
        self.messages.append({"role": "user", "content": text})
        answer: list[str] = []
        stopped = False
        try:
            self._make_room()
            for piece in self._model.chat(self.history(self._dropped), **self._generation):
                answer.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            stopped = True
        except (ContextError, TemplateError) as error:
            self.messages.pop()
            self._tell(error)
            return
        if stopped and not answer:
            self.messages.pop()
            click.echo("\n(stopped before an answer: the message is not kept)", err=True)
        else:
            self.messages.append({"role": "assistant", "content": "".join(answer)})
            click.echo()
            self._remark(stopped)
        if self._timings:
            show_timings(self._model.timings)

    def _remark(self, stopped: bool) -> None:
        """Say on stderr why an answer ended early, if it did."""
        if stopped:
            click.echo("(stopped)", err=True)
        elif self._model.finish_reason == "context":
            click.echo("(the context is full: the answer was cut off)", err=True)

    def _make_room(self) -> None:
        """Where less than a quarter of the context is left for the answer, drop the oldest turns until half is left.

        More than needed at once, as every drop means that the rest must be computed again. Raises ContextError for a
        message that does not fit alone.
        """
        context, latest = self._model.context, len(self.messages) - 1
        if self._tokens(self._dropped) <= context - context // 4:
            return
        if (alone := self._tokens(latest)) > context:
            raise ContextError(
                f"the message has {alone} tokens, the context {context}: shorten it, or start with a larger --context"
            )
        before = self._dropped
        while self._dropped < latest and self._tokens(self._dropped) > context // 2:
            self._dropped += 2  # a question and its answer
        if dropped := self._dropped - before:
            line = f"(the oldest {dropped} messages no longer fit and were dropped)"
            click.echo(click.style(line, dim=True), err=True)

    def _tokens(self, first: int) -> int:
        """Tokens of the prompt if message `first` is the oldest that the model sees."""
        return len(self._model.chat_tokens(self.history(first)))

    def _tell(self, error: EdgeqError) -> None:
        """Someone at a terminal can go on after an error; a script cannot know of it, so it ends there."""
        if not self._interactive:
            raise error
        click.echo(f"edgeq: {error}", err=True)


def banner(model: "Model") -> str:
    """E.g. "tiny.eqf: llama, 3.20 M parameters, context 512"."""
    name = os.path.basename(model.file.path)
    kind = model.file.metadata.get("architecture", "unknown architecture")
    return f"{name}: {kind}, {count(model.parameters)} parameters, context {model.context}"


def save(messages: list[dict[str, str]], path: Path) -> None:
    """Write a conversation as a JSON list of messages. Raises OutputError; then an older file stays as it was."""
    text = json.dumps(messages, ensure_ascii=False, indent=2)
    write_file(path, f"{text}\n".encode())
