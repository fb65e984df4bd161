"""`edgeq chat`: a conversation in the terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.chat_commands import Ask, Talk, note, obey, tell
from edgeq.cli.chat_conversation import Conversation, SavedConversation
from edgeq.cli.chat_input import Reader, reader
from edgeq.cli.chat_text import command_of, message_of
from edgeq.cli.chat_tools import ROUNDS, Tools, read_tools
from edgeq.cli.model_argument import model_argument
from edgeq.cli.options import IMAGES, PREFIX, check_text, load_model, sampling_options, show_timings, writing_options
from edgeq.cli.prefix import known
from edgeq.cli.thoughts import answered
from edgeq.cli.units import count
from edgeq.cli.wrap import Wrapper, terminal_columns
from edgeq.errors import EdgeqError, UsageError
from edgeq.talk.grammar import check_there
from edgeq.text import template_process

if TYPE_CHECKING:
    from edgeq.engine.chat_answer import ToolCall
    from edgeq.engine.model import Model


@click.command("chat")
@model_argument
@click.option("--system", callback=check_text, help="The system message.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr after each answer.")
@PREFIX
@click.option(
    "--session",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Go on with the conversation in this file, if it is there; it is saved after each answer.",
)
@click.option(
    "--tools",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.py",
    help="Let the model call the public functions of a Python file, each after asking you; may be given several times.",
)
@click.option("--yes", is_flag=True, help="Run what the model calls (--tools) without asking.")
@IMAGES
@sampling_options
@writing_options
def command(
    model: Path,
    system: str | None,
    timings: bool,
    prefix: Path | None,
    session: Path | None,
    tools: tuple[Path, ...],
    yes: bool,
    images: tuple[Path, ...],
    generation: dict[str, Any],
    loading: dict[str, Any],
) -> None:
    """Talk with MODEL: an .eqf or .gguf file, a checkpoint's folder or a Hub repository (owner/name).

    It needs a chat template. /help lists what else can be typed.
    """
    functions = read_tools(tools)
    if yes and not tools:
        raise UsageError("--yes says that tools may run without asking: give --tools FILE.py, too, or leave it out")
    if tools and not yes and not sys.stdin.isatty():
        raise UsageError("--tools asks before each call, and stdin is no terminal: --yes runs all calls without asking")
    if tools:
        check_there("--tools")
    template_process.begin()  # while the model is loaded
    with load_model(model, loading) as loaded:
        _ = loaded.chat_template  # a model that cannot chat says so now, not after the first message
        if prefix is not None:
            own, _ = known(prefix, loaded)
            system = own if system is None else system
        saved = None if session is None else SavedConversation(session)
        with reader() as source:
            if source.interactive:
                tell(banner(model.name if model.exists() else str(model), loaded))
                tell("/help lists commands.")
            called = Tools(functions, None if yes else source.ask) if functions else None
            chat = Chat(loaded, system, generation, timings, source, saved, called)
            if called and source.interactive:
                told = "without asking" if yes else "once you allow it"
                tell(f"the model may call {', '.join(functions)}, {told}")
            for image in images:
                chat.talk.show(image)
            if saved is not None and saved.resume(chat.talk.conversation, loaded) and source.interactive:
                tell(f"going on after {len(chat.talk.conversation.messages)} messages of {session}")
            chat.go_on()


class Chat:
    """Reads texts, does what they say, and shows the answers."""

    def __init__(
        self,
        model: "Model",
        system: str | None,
        settings: dict[str, Any],
        timings: bool,
        reader: Reader,
        saved: SavedConversation | None = None,
        tools: Tools | None = None,
    ):
        edit = getattr(reader, "edit", None)
        schemas = tools.schemas if tools else ()
        conversation = Conversation(model, system, schemas)
        self.talk = Talk(model, conversation, settings, edit, tools.functions if tools else {}, unsaved=saved is None)
        self._tools = tools
        self._model = model
        self._timings = timings
        self._saved = saved
        self._reader = reader
        self._interrupted = False  # the latest thing typed was Ctrl-C

    def go_on(self) -> None:
        """Go on until /exit or the end of the input. A script ends with the first error, as it cannot know of it."""
        while not self.talk.leaving:
            try:
                if (text := self._read()) is None:
                    break
                self._do(text)
            except EdgeqError as error:
                if not self._reader.interactive:
                    raise
                tell(f"edgeq: {error}")
        if self._saved is not None:
            self._saved.save(self.talk.conversation, self._model)

    def _read(self) -> str | None:
        """What was typed; None at the end. Ctrl-C drops it, and leaves the second time."""
        try:
            text = self._reader.read()
        except KeyboardInterrupt:
            if self._interrupted or not self._reader.interactive:
                raise
            self._interrupted = True
            click.echo(f"{self._after_keys()}/exit, Ctrl-D or another Ctrl-C leaves", err=True)
            return ""
        self._interrupted = False
        return text

    def _do(self, text: str) -> None:
        """Obey a command, answer a message."""
        ask: Ask | None = None
        if named := command_of(text):
            try:
                ask = obey(self.talk, *named)
            except EdgeqError as error:  # no answer is missing: a script can go on, too
                tell(str(error))
            except KeyboardInterrupt:
                if not self._reader.interactive:
                    raise
                note("stopped")
        elif text.strip():
            ask = Ask(message_of(text))
        if ask is not None:
            self._answer(ask)

    def _answer(self, ask: Ask) -> None:
        """Stream an answer; Ctrl-C keeps what was said so far. After an error the message is not kept."""
        text = ask.text
        if not ask.again:
            text = "\n\n".join([*self.talk.attached, text])
        screen, stopped, called = Screen(), False, list[dict[str, Any]]()
        try:
            while calls := self._say(text, ask.again, called, screen):
                screen.again()
                self._call(calls, called)
        except KeyboardInterrupt:
            stopped = True
        except EdgeqError:
            screen.end()
            raise
        if stopped and not screen.text and not called:
            click.echo(self._after_keys(), nl=False, err=True)
            note("stopped before an answer: the message is not kept")
        else:
            self.talk.conversation.keep(text, screen.text, ask.again, called)
            if not ask.again:
                self.talk.attached.clear()
                self.talk.pictures.clear()
            screen.end(always=True)
            self._remark(stopped, screen.text)
            if self._saved is not None:
                self._saved.save(self.talk.conversation, self._model)
        if self._timings:
            show_timings(self._model.timings)

    def _say(self, text: str, again: bool, called: list[dict[str, Any]], screen: "Screen") -> "list[ToolCall]":
        """Show what the model says after what was `called`, and give what it calls; then its message is there, too."""
        given = dict(self.talk.settings)
        if self._tools:
            done = sum("tool_calls" in message for message in called) >= ROUNDS
            given |= {"tools": self._tools.schemas, "tool_choice": "none" if done else "auto"}
            if done:
                note(f"after {ROUNDS} rounds of calls the model must answer without")
        with self._reader.answering():
            answer = self._model.chat(self._prompt(text, again, called), **given)
            for piece in answered(answer):
                screen.show(piece)
        calls = answer.tool_calls if self._tools else []
        if calls:
            called.append(answer.message)
        return calls

    def _call(self, calls: "list[ToolCall]", called: list[dict[str, Any]]) -> None:
        """Have the tools called, and add what they say to what was `called`; all of it or, stopped, nothing."""
        assert self._tools is not None
        try:
            said = [self._tools.answer(call, self._has_room) for call in calls]
        except KeyboardInterrupt:
            called.pop()
            raise
        called += said

    def _has_room(self, text: str) -> bool:
        """Whether what a tool says leaves most of the context to the rest."""
        return len(self._model.tokenizer.encode(text, add_special=False)) <= self._model.context // 4

    def _prompt(self, text: str, again: bool, called: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the model is to answer. Tells what it no longer sees."""
        conversation = self.talk.conversation
        before = conversation.dropped
        messages = conversation.prompt(text, again, called, self.talk.pictures)
        if dropped := conversation.dropped - before:
            note(f"the oldest {dropped} messages no longer fit and were dropped")
        return messages

    def _remark(self, stopped: bool, answer: str) -> None:
        """Say on stderr why an answer ended early, if it did."""
        if stopped:
            note("stopped")
        elif self._model.finish_reason == "context":
            note("the context is full: the answer was cut off")
        elif self._model.finish_reason == "max_tokens" and (self._reader.interactive or not answer):
            note("max_tokens: the answer was cut off")
        elif not answer:
            note("the model ended its answer at once")

    def _after_keys(self) -> str:
        """What brings a remark to the beginning of a line."""
        return "\n" if self._reader.echoes else ""


class Screen:
    """Shows an answer as it comes: wrapped on a terminal, and as it is elsewhere."""

    def __init__(self) -> None:
        self.text = ""
        self._wrapper = Wrapper(lambda: terminal_columns(sys.stdout)) if sys.stdout.isatty() else None

    def show(self, piece: str) -> None:
        self.text += piece
        self._write(self._wrapper.push(piece) if self._wrapper else piece)

    def again(self) -> None:
        """Begin anew: what was shown is not the answer yet."""
        self.end()
        self.text = ""

    def end(self, always: bool = False) -> None:
        """End a line that has begun, or `always` one."""
        if self.text or always:
            self._write((self._wrapper.finish() if self._wrapper else "") + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def banner(name: str, model: "Model") -> str:
    """E.g. "tiny.eqf: llama, 3.20 M parameters, context 512"."""
    kind = model.file.metadata.get("architecture", "unknown architecture")
    return f"{name}: {kind}, {count(model.parameters)} parameters, context {model.context}"
