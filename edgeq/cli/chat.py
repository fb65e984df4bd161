"""`edgeq chat`: a conversation in the terminal."""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.options import load_model, model_options, sampling_options, show_timings
from edgeq.errors import ContextError, EdgeqError, OutputError, TemplateError

if TYPE_CHECKING:
    from edgeq.model import Model

HELP = """\
/help          this list
/reset         forget the conversation
/system TEXT   set the system message and forget the conversation; without TEXT, drop it
/save FILE     write the conversation as JSON
/exit          leave (so does Ctrl-D)
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one."""


@click.command("chat", short_help="Talk with a model.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--system", help="The system message.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr after each answer.")
@sampling_options
@model_options
def command(
    model: Path, system: str | None, timings: bool, generation: dict[str, Any], loading: dict[str, Any]
) -> None:
    """Talk with MODEL, an .eqf file with a chat template. /help lists what else can be typed."""
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

    def talk(self) -> None:
        """Go on until /exit or the end of the input."""
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives input() a line editor and a history)
            click.echo(f"{self._model!r}\n/help lists commands.", err=True)
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line.strip():
                self._answer(line)

    def _read(self) -> str | None:
        """One message; None at the end of the input. Ctrl-C drops what was typed."""
        lines: list[str] = []
        while True:
            try:
                line = input(("> " if not lines else ". ") if self._interactive else "")
            except EOFError:
                if self._interactive:
                    click.echo("", err=True)
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                click.echo("\n/exit or Ctrl-D leaves", err=True)
                return ""
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _obey(self, line: str) -> bool:
        """Do what a /command says; False to leave."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/exit", "/quit"):
            return False
        if name == "/reset":
            self.messages.clear()
        elif name == "/system":
            self.system = rest or None
            self.messages.clear()
        elif name == "/save" and rest:
            try:
                save(self.history(), Path(rest))
            except OutputError as error:
                click.echo(str(error), err=True)
        elif name == "/help":
            click.echo(HELP)
        else:
            click.echo(f"{line}: no such command, or something is missing; /help lists them", err=True)
        return True

    def history(self) -> list[dict[str, str]]:
        """The conversation, with the system message if there is one."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return system + self.messages

    def _answer(self, text: str) -> None:
        """Stream the answer to a message; Ctrl-C keeps what was said so far."""
        self.messages.append({"role": "user", "content": text})
        answer: list[str] = []
        try:
            for piece in self._model.chat(self.history(), **self._generation):
                answer.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            click.echo("\n(stopped)", err=True)
        except (ContextError, TemplateError) as error:
            self.messages.pop()
            self._tell(error)
            return
        sys.stdout.write("\n")
        sys.stdout.flush()
        self.messages.append({"role": "assistant", "content": "".join(answer)})
        if self._model.finish_reason == "context":
            click.echo("(the context is full: /reset starts a new conversation)", err=True)
        if self._timings:
            show_timings(self._model.timings)

    def _tell(self, error: EdgeqError) -> None:
        """Someone at a terminal can go on after an error; a script cannot know of it, so it ends there."""
        if not self._interactive:
            raise error
        hint = "; /reset starts a new conversation" if isinstance(error, ContextError) else ""
        click.echo(f"edgeq: {error}{hint}", err=True)


def save(messages: list[dict[str, str]], path: Path) -> None:
    """Write a conversation as a JSON list of messages. Raises OutputError; then an older file stays as it was."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                json.dump(messages, file, ensure_ascii=False, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
