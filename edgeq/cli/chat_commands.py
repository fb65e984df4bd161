"""The commands of a chat: a row of COMMANDS each."""

import difflib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli import chat_conversation, chat_settings
from edgeq.cli.chat_conversation import Conversation
from edgeq.cli.options import read_text, show_timings
from edgeq.cli.wrap import terminal_columns, wrapped
from edgeq.errors import UsageError
from edgeq.printable import printable
from edgeq.system import environment

if TYPE_CHECKING:
    from edgeq.engine.model import Model

BYTES_PER_TOKEN = 32  # more than any text has on average: a file that is larger cannot fit
KEYS = """\
Enter sends a message, which may be pasted. Alt-Enter, Ctrl-J, or a \\ at the end begin another line.
A block begins and ends with \"\"\". A message that begins with a slash is written with two: //.
Ctrl-C stops an answer; twice at the prompt it leaves."""


@dataclass(frozen=True)
class Ask:
    """A message that is to be answered, or `again` instead of the latest one."""

    text: str
    again: bool = False


@dataclass
class Talk:
    """What commands work on.

    edit: gives a text that someone has edited, or None where they left it; absent where there is no editor
    """

    model: "Model"
    conversation: Conversation
    settings: dict[str, Any]  # keywords of Model.chat
    edit: Callable[[str], str | None] | None = None
    tools: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # that the model may call
    attached: list[str] = field(default_factory=list)  # what comes before the next message
    pictures: list[Any] = field(default_factory=list)  # those of the next message
    unsaved: bool = True  # whether no file is to hold the conversation
    leaving: bool = False

    def begin(self, system: str | None, messages: list[dict[str, str]] | None = None) -> None:
        """Forget the conversation, and go on from another one."""
        self.conversation.begin(system, messages or [])
        self.attached.clear()
        self.pictures.clear()

    def show(self, path: Path) -> None:
        """Give the next message a picture. Raises UsageError for what is none, and where the model sees none."""
        from edgeq.engine.seeing import text_alone
        from edgeq.vision.picture import pixels

        if not self.model.sees:
            raise UsageError(f"{text_alone(self.model.file)}: it sees no images")
        if not self.unsaved:
            raise UsageError("a conversation with images cannot be saved: leave out --session")
        self.pictures.append(pixels(path))


@dataclass(frozen=True)
class Command:
    """A name, and what it does with the text after it. Raises EdgeqErrors, and then has changed nothing."""

    name: str
    run: Callable[[Talk, str], Ask | None]
    does: str
    takes: str = ""
    aliases: tuple[str, ...] = ()


def tell(text: str, dim: bool = False) -> None:
    """One line on stderr, which is no part of the answers; on a terminal as many as it takes."""
    text = " ".join(printable(text).split())
    if sys.stderr.isatty():
        text = wrapped(text, terminal_columns(sys.stderr))
    click.echo(click.style(text, dim=True) if dim and environment.colour() else text, err=True)


def note(text: str) -> None:
    """Tell what was done."""
    tell(f"({text})", dim=True)


def help_(talk: Talk, rest: str) -> None:
    rows = [(f"{command.name} {command.takes}", command.does) for command in COMMANDS]
    width = max(len(left) for left, _ in rows) + 2
    text = "\n".join(f"{left:{width}}{right}" for left, right in rows) + f"\n{KEYS}"
    click.echo(wrapped(text, terminal_columns(sys.stdout)) if sys.stdout.isatty() else text)


def reset(talk: Talk, rest: str) -> None:
    talk.begin(talk.conversation.system)
    note("the conversation is forgotten")


def system(talk: Talk, rest: str) -> None:
    talk.begin(rest or None)
    note(f"the system message is {'set' if rest else 'dropped'}, the conversation forgotten")


def save(talk: Talk, rest: str) -> None:
    path = _path("/save", rest)
    talk.conversation.check_saved()
    chat_conversation.save(talk.conversation.history(), path)
    note(f"{path}: {_messages(talk)} saved")


def load(talk: Talk, rest: str) -> None:
    path = _path("/load", rest)
    talk.begin(*chat_conversation.load(path))
    note(f"{path}: {_messages(talk)} loaded")


def regen(talk: Talk, rest: str) -> Ask:
    return Ask(_latest(talk), again=True)


def edit(talk: Talk, rest: str) -> Ask | None:
    latest = _latest(talk)
    if not rest and talk.edit is None:
        raise UsageError("usage: /edit TEXT (there is no editor here to show the latest message)")
    text = rest or (talk.edit(latest) if talk.edit else None)
    if text is None or not text.strip():
        note("the latest message stays as it was")
        return None
    return Ask(text, again=True)


def file(talk: Talk, rest: str) -> Ask | None:
    path, question = _path_and_text(rest)
    content = _content(path, talk.model.context)
    tokens, context = len(talk.model.tokenizer.encode(content, add_special=False)), talk.model.context
    if tokens > context:
        raise UsageError(f"{path}: has {tokens} tokens, the context {context}: give less, or a larger --context")
    talk.attached.append(_quoted(path.name, content))
    note(f"{path}: {tokens} tokens" + ("" if question else ", put before the next message"))
    return Ask(question) if question else None


def image(talk: Talk, rest: str) -> Ask | None:
    path, question = _path_and_text(rest, "/image")
    talk.show(path)
    height, width = talk.pictures[-1].shape[:2]
    note(f"{path}: {width} x {height} pixels" + ("" if question else ", shown with the next message"))
    return Ask(question) if question else None


def set_(talk: Talk, rest: str) -> None:
    word, _, after = rest.partition(" ")
    if word == "system":  # as Ollama has it, and "parameter"
        return system(talk, after.strip())
    rest = after.strip() if word == "parameter" else rest
    names: list[str] = list(chat_settings.settings())
    if rest:
        known = len(rest.split()) == 1  # only a name: it is shown
        names = [chat_settings.option_name(rest) if known else chat_settings.change(talk.settings, rest)]
    own = talk.model.sampling_defaults
    return click.echo("\n".join(chat_settings.shown(talk.settings, own, name) for name in names), err=True)


def tokens(talk: Talk, rest: str) -> None:
    conversation, context = talk.conversation, talk.model.context
    used = conversation.tokens()
    line = f"{_messages(talk)}: {used} tokens of a context of {context}, {100 * used / context:.0f} %"
    if conversation.dropped:
        line += f"; the oldest {conversation.dropped} messages are no longer seen"
    note(f"{line}; {talk.model.computed_tokens} are computed")


def tools(talk: Talk, rest: str) -> None:
    if not talk.tools:
        raise UsageError("there are no tools: start with --tools FILE.py, whose functions the model may call then")
    for name, function in talk.tools.items():
        tell(f"{name}{inspect.signature(function)}: {(inspect.getdoc(function) or '').splitlines()[0]}")


def timings(talk: Talk, rest: str) -> None:
    show_timings(talk.model.timings)


def leave(talk: Talk, rest: str) -> None:
    talk.leaving = True


COMMANDS = (
    Command("/help", help_, "this list", aliases=("/?",)),
    Command("/reset", reset, "forget the conversation", aliases=("/clear",)),
    Command("/system", system, "set the system message, or drop it, and forget the conversation", "[TEXT]"),
    Command("/regen", regen, "answer the latest message again"),
    Command("/edit", edit, "change the latest message, and answer that", "[TEXT]"),
    Command("/file", file, "put a file's text before this or the next message", "FILE [QUESTION]", ("/read",)),
    Command("/image", image, "show an image with this or the next message", "FILE [QUESTION]"),
    Command("/save", save, "write the conversation as JSON", "FILE"),
    Command("/load", load, "go on with a conversation that was saved", "FILE"),
    Command("/set", set_, 'show the options, or change one; its VALUE may be "default"', "[NAME VALUE]"),
    Command("/tokens", tokens, "how much of the context the conversation takes"),
    Command("/tools", tools, "the functions that the model may call (--tools)"),
    Command("/timings", timings, "times and speeds of the latest answer"),
    Command("/exit", leave, "leave (so does Ctrl-D)", aliases=("/quit", "/bye")),
)
BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def obey(talk: Talk, name: str, rest: str) -> Ask | None:
    """Do what a command says; a message if that is to be answered. Raises EdgeqErrors."""
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, 1, 0.7)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"{name}: no such command; {hint}/help lists them, // begins a message with a slash")
    return BY_NAME[name].run(talk, rest)


def _messages(talk: Talk) -> str:
    count = len(talk.conversation.history())
    return f"{count} message{'s' if count != 1 else ''}"


def _latest(talk: Talk) -> str:
    if (latest := talk.conversation.latest) is None:
        raise UsageError("there is no message yet")
    return latest


def _path(name: str, text: str) -> Path:
    if not text:
        raise UsageError(f"usage: {name} FILE")
    return Path(os.path.expanduser(_unquoted(text)))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] else text


def _path_and_text(text: str, name: str = "/file") -> tuple[Path, str]:
    """A file and what follows it: a quoted name, else the longest that exists, else the first word."""
    if not text:
        raise UsageError(f"usage: {name} FILE [QUESTION]")
    if text[0] in "\"'" and (end := text.find(text[0], 1)) > 0:
        return Path(os.path.expanduser(text[1:end])), text[end + 1 :].strip()
    first_line = text.split("\n", 1)[0]
    ends = [i for i in range(1, len(first_line) + 1) if first_line[i : i + 1] in ("", " ", "\t")]
    for end in reversed(ends):
        path = Path(os.path.expanduser(text[:end]))
        if os.path.isfile(path):
            return path, text[end:].strip()
    return Path(os.path.expanduser(text[: ends[0]])), text[ends[0] :].strip()


def _content(path: Path, context: int) -> str:
    """A file's text. Raises UsageError where it is none, or more than a context can hold."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is not a regular file: give one of text")
    size = path.stat().st_size if path.exists() else 0
    if size > context * BYTES_PER_TOKEN:
        raise UsageError(f"{path}: {size / 1e6:.1f} MB are more than a context of {context} tokens holds: give less")
    content = read_text(path).removeprefix("\ufeff")
    if not content.strip():
        raise UsageError(f"{path}: is empty")
    return content


def _quoted(name: str, content: str) -> str:
    """A file's text for a message, in a fence that it does not have itself."""
    fence = "```"
    while fence in content:
        fence += "`"
    line_end = "" if content.endswith("\n") else "\n"
    return f"{name}:\n{fence}\n{content}{line_end}{fence}"
