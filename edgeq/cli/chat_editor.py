"""The editor of a chat, by prompt_toolkit. Only this file imports it."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Self

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import History
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output, create_output

from edgeq.cli.chat_commands import COMMANDS
from edgeq.cli.chat_history import HistoryFile
from edgeq.cli.chat_keys import HeldKeys
from edgeq.cli.chat_settings import DEFAULT, settings
from edgeq.cli.chat_text import block_is_open
from edgeq.errors import UsageError
from edgeq.system import environment


class Editor:
    """Edits texts of several lines, with the history of earlier chats and completion of commands."""

    interactive = True
    echoes = False

    def __init__(self, history: HistoryFile, input: Input, output: Output, keys: HeldKeys | None = None):
        self._input, self._output = input, output
        self._keys = keys
        self._session: PromptSession[str] = PromptSession(
            "> ",
            prompt_continuation=lambda width, line, wrapped: "  " if wrapped else ". ",
            multiline=True,
            key_bindings=_bindings(),
            completer=CommandCompleter(),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            history=_History(history),
            enable_suspend=True,
            color_depth=None if environment.colour() else ColorDepth.DEPTH_1_BIT,
            input=input,
            output=output,
        )

    @classmethod
    def at_terminal(cls) -> Self:
        """The editor on stdin, drawn on stdout or, where that is none of a terminal, on stderr."""
        output = create_output(sys.stdout if sys.stdout.isatty() else sys.stderr)
        keys = HeldKeys(sys.stdin.fileno())
        return cls(HistoryFile(environment.history_file()), create_input(sys.stdin), output, keys)

    def __enter__(self) -> Self:
        if self._keys:
            self._keys.hold()
        return self

    def __exit__(self, *error: object) -> None:
        if self._keys:
            self._keys.release()

    def read(self) -> str | None:
        """A text, empty where Ctrl-C drops one; None after Ctrl-D. Raises KeyboardInterrupt after Ctrl-C where nothing
        was typed, UsageError for bytes that are none."""
        try:
            return self._prompt("")
        except KeyboardInterrupt:
            if not self._session.default_buffer.text:
                raise
            return ""

    def edit(self, text: str) -> str | None:
        """A text after it was changed; None after Ctrl-C or Ctrl-D."""
        try:
            return self._prompt(text)
        except KeyboardInterrupt:
            return None

    def _prompt(self, text: str) -> str | None:
        try:
            edited = self._session.prompt(default=text).strip("\n")
        except EOFError:
            return None
        if any("\ud800" <= character <= "\udfff" for character in edited):
            raise UsageError("what was typed is not UTF-8 text: set the terminal to UTF-8")
        return edited

    def ask(self, question: str) -> str:
        """A line, which is not kept in the history. What was typed before it waits for the next prompt."""
        before = [*get_typeahead(self._input), *self._input.read_keys()]
        try:
            return PromptSession[str](
                question, input=self._input, output=self._output, reserve_space_for_menu=0
            ).prompt()
        except EOFError:
            return ""
        finally:
            store_typeahead(self._input, before + get_typeahead(self._input))
            if self._keys:
                self._keys.hold()

    def answering(self) -> AbstractContextManager[object]:
        return self._answering()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """What is typed or pasted meanwhile waits, unseen, for the next prompt."""
        if self._keys is None:
            yield
            return
        self._keys.hold()  # again: the shell may have set the terminal after Ctrl-Z
        self._output.enable_bracketed_paste()  # the next prompt must know where a paste began
        self._output.flush()
        try:
            with self._keys.taken(self._take):
                yield
        finally:
            self._output.disable_bracketed_paste()
            self._output.flush()

    def _take(self) -> bool:
        """Keep what was typed for the next prompt; False where the terminal is gone."""
        store_typeahead(self._input, self._input.read_keys())
        return not self._input.closed


class CommandCompleter(Completer):
    """Completes names of commands, and what some of them take: files, options."""

    def __init__(self) -> None:
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What can stand before the cursor, in the first line of a command."""
        name, space, rest = document.text_before_cursor.partition(" ")
        if not name.startswith("/") or "\n" in document.text_before_cursor:
            return
        if not space:
            for command in COMMANDS:
                if command.name.startswith(name.lower()):
                    yield Completion(command.name, -len(name), display_meta=command.does)
        elif name.lower() in ("/file", "/image", "/load", "/save"):
            yield from self._files.get_completions(Document(rest), complete_event)
        elif name.lower() == "/set":
            option, space, value = rest.partition(" ")
            for word in [DEFAULT] if space else settings():
                if word.startswith(value if space else option):
                    yield Completion(word, -len(value if space else option))


class _History(History):
    def __init__(self, file: HistoryFile):
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._file.read())

    def store_string(self, string: str) -> None:
        self._file.add(string)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not what is searched in the history

    @bindings.add("enter", filter=typing)
    def enter(event: KeyPressEvent) -> None:
        """Send the text, unless it goes on: after a backslash at its end, or within a block."""
        buffer = event.current_buffer
        if block_is_open(buffer.text):
            buffer.newline(copy_margin=False)
        elif buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    @bindings.add("c-j", filter=typing)
    def another_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings
