"""Where messages come from: a pipe, a terminal without an editor, or the editor (chat_editor.py)."""

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Protocol, Self

import click

from edgeq.cli.chat_text import read_text
from edgeq.errors import UsageError
from edgeq.system import environment


class Reader(Protocol):
    """Reads typed texts; a context manager, which leaves the terminal as it was."""

    interactive: bool  # someone sees what is told, and can go on after an error
    echoes: bool  # Ctrl-C leaves its ^C on the screen

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def read(self) -> str | None:
        """A typed text as it stands; None at the end. Raises KeyboardInterrupt, UsageError for bytes that are none."""

    def answering(self) -> AbstractContextManager[object]:
        """A block in which an answer is shown: what is typed meanwhile belongs to the next text."""

    def ask(self, question: str) -> str:
        """What is typed after a question was shown, never what was typed before. Empty at the end of the input, and
        where nobody is there. Raises KeyboardInterrupt."""


class Piped:
    """Lines of a file or a pipe."""

    interactive = False
    echoes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self) -> str | None:
        try:
            return read_text(self._line)
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            raise UsageError("the messages on stdin are not UTF-8 text: convert them to UTF-8") from error

    def answering(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def ask(self, question: str) -> str:
        return ""

    def _line(self, goes_on: bool) -> str:
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.removesuffix("\n").removesuffix("\r")


class Terminal(Piped):
    """A terminal without an editor of ours: one that knows no escape codes, or where prompt_toolkit is missing."""

    interactive = True
    echoes = True

    def __enter__(self) -> Self:
        if not environment.dumb_terminal():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives input() a line editor and a history)
        return self

    def read(self) -> str | None:
        text = super().read()
        if text is None:
            click.echo(err=True)
        return text

    def ask(self, question: str) -> str:
        with contextlib.suppress(ImportError, OSError, ValueError):
            import termios

            with contextlib.suppress(termios.error):
                termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        try:
            return input(question)
        except EOFError:
            click.echo(err=True)
            return ""

    def _line(self, goes_on: bool) -> str:
        return input(". " if goes_on else "> ")


def reader() -> Reader:
    """The best one for this process' stdin and stdout."""
    if not sys.stdin.isatty():
        return Piped()
    if environment.dumb_terminal() or not (sys.stdout.isatty() or sys.stderr.isatty()):
        return Terminal()
    try:
        from edgeq.cli.chat_editor import Editor
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("prompt_toolkit"):
            raise
        return Terminal()
    return Editor.at_terminal()
