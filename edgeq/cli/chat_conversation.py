"""A conversation: its messages, what of them the model still sees, and the file that it is saved in."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import ContextError, UsageError
from edgeq.system.output import write_file

if TYPE_CHECKING:
    from edgeq.engine.model import Model

Message = dict[str, Any]  # role and content, texts; of an answer that calls tools the calls, of a result which call's


class Conversation:
    """A system message or None, and turns: a message, calls of tools and their results, the answer.

    tools: those that may be called, in OpenAI's form
    """

    def __init__(self, model: "Model", system: str | None = None, tools: Sequence[Message] = ()):
        self._model = model
        self._tools = tools
        self.system = system
        self.messages: list[Message] = []
        self.dropped = 0  # the oldest messages, which the model no longer sees
        self.pictures: dict[int, list[Any]] = {}  # of messages, by their numbers

    @property
    def latest(self) -> str | None:
        """The latest message that was answered."""
        return self.messages[_last_turn(self.messages)]["content"] if self.messages else None

    def history(self) -> list[Message]:
        """All of it, as it is saved."""
        return self._after_system(self.messages)

    def begin(self, system: str | None, messages: list[Message]) -> None:
        """Go on from these turns."""
        self.system, self.messages, self.dropped, self.pictures = system, list(messages), 0, {}

    def prompt(
        self, text: str, again: bool = False, called: Sequence[Message] = (), pictures: Sequence[Any] = ()
    ) -> list[Message]:
        """What the model is to answer: a message after the conversation, or `again` instead of its latest, whose
        pictures it keeps, and what was `called` for it: calls of tools and their results.

        The conversation stays as it is until `keep`, but for the oldest turns that the model no longer sees. Raises
        ContextError for a message that does not fit alone.
        """
        before = self._before(again)
        self.pictures.pop(len(self.messages), None)  # those of a message that was not answered
        if not again:
            self.pictures[len(before)] = list(pictures)
        messages = self._with_pictures([*before, {"role": "user", "content": text}, *called])
        self._make_room(messages)
        return self._after_system(messages[self.dropped :])

    def keep(self, text: str, answer: str, again: bool = False, called: Sequence[Message] = ()) -> None:
        """Add a turn, or put it `again` in the place of the latest."""
        turn = [{"role": "user", "content": text}, *called, {"role": "assistant", "content": answer}]
        self.messages = [*self._before(again), *turn]

    def tokens(self) -> int:
        """Tokens of what the model sees of it; 0 where there is nothing yet."""
        return self._tokens(self._with_pictures(self.messages)[self.dropped :]) if self.messages else 0

    def _with_pictures(self, messages: list[Message]) -> list[Message]:
        """The messages as the model is given them, from the first on."""
        found: list[Message] = [*messages]
        for number, pictures in self.pictures.items():
            if pictures and number < len(found):
                parts = [{"type": "image", "image": picture} for picture in pictures]
                found[number] = {
                    "role": "user",
                    "content": [*parts, {"type": "text", "text": messages[number]["content"]}],
                }
        return found

    def check_saved(self) -> None:
        """UsageError for a conversation that cannot be saved."""
        if any(pictures and number < len(self.messages) for number, pictures in self.pictures.items()):
            raise UsageError("the conversation has images, and is not saved: /reset begins another one")

    def _before(self, again: bool) -> list[Message]:
        return self.messages[: _last_turn(self.messages)] if again else self.messages

    def _after_system(self, messages: list[Message]) -> list[Message]:
        return ([] if self.system is None else [{"role": "system", "content": self.system}]) + messages

    def _make_room(self, messages: list[Message]) -> None:
        """Where less than a quarter of the context is left for the answer, drop the oldest turns until half is left.

        More than needed at once, as every drop means that the rest must be computed again.
        """
        context, latest = self._model.context, _last_turn(messages)
        if self._tokens(messages[self.dropped :]) <= context - context // 4:
            return
        if (alone := self._tokens(messages[latest:])) > context:
            what = "the message has" if latest == len(messages) - 1 else "the message and what tools said of it have"
            raise ContextError(
                f"{what} {alone} tokens, the context {context}: shorten it, or start with a larger --context"
            )
        while self.dropped < latest and self._tokens(messages[self.dropped :]) > context // 2:
            self.dropped = next(i for i in range(self.dropped + 1, latest + 1) if messages[i]["role"] == "user")

    def _tokens(self, messages: list[Message]) -> int:
        return len(self._model.chat_tokens(self._after_system(messages), tools=self._tools or None))


def _last_turn(messages: Sequence[Message]) -> int:
    """Where the latest turn begins."""
    return max(i for i, message in enumerate(messages) if message["role"] == "user")


def save(messages: list[Message], path: Path) -> None:
    """Write a conversation as a JSON list of messages. Raises OutputError; then an older file stays as it was."""
    text = json.dumps(messages, ensure_ascii=False, indent=2)
    write_file(path, f"{text}\n".encode())


def load(path: Path) -> tuple[str | None, list[Message]]:
    """The system message or None, and the turns of a file that `save` wrote. UsageError for anything else."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is not a regular file: give one that /save wrote")
    try:
        messages = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: give a file that /save wrote") from error
    if fault := _fault(messages):
        raise UsageError(f"{path}: is not a conversation that /save wrote: {fault}")
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


def _fault(messages: Any) -> str | None:
    """What keeps a value from being a conversation."""
    if not isinstance(messages, list):
        return "it must be a list of messages"
    expected, unanswered = "user", 0  # the role that is to come; results of tools that are
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} must have a role and a content, and nothing else"
        role, calls = message["role"], message.get("tool_calls", ())
        more = {"assistant": {"tool_calls", "reasoning_content"}, "tool": {"tool_call_id", "name"}}
        if message.keys() - {"role", "content"} - more.get(role if isinstance(role, str) else "", set()):
            return f"message {number} must have a role and a content, and nothing else"
        texts = [text for field, text in message.items() if field not in ("role", "tool_calls")]
        if not all(isinstance(text, str) and _is_text(text) for text in texts):
            return f"the content of message {number} must be text"
        if role == "tool" and "tool_call_id" not in message:
            return f"message {number} must have the tool_call_id of a call"
        if not all(map(_is_call, calls if isinstance(calls, list | tuple) else [None])):
            return f"message {number} has calls that are none"
        if number == 1 and role == "system":
            continue
        if role != expected:
            return f"message {number} must be one of role {expected}"
        unanswered = unanswered - 1 if role == "tool" else len(calls)
        if unanswered:
            expected = "tool"
        else:
            expected = "user" if role == "assistant" else "assistant"
    return None if expected == "user" else "the last message has no answer"


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    texts = [call.get("id"), function.get("name"), function.get("arguments")] if isinstance(function, dict) else [None]
    return all(isinstance(text, str) and _is_text(text) for text in texts)


def _is_text(content: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in content)


class SavedConversation:
    """A file that holds a conversation and what the model keeps of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: list[Message] = []

    def resume(self, conversation: Conversation, model: "Model") -> bool:
        """Go on with what the file holds; whether it is there. Raises as `Model.load_prefix`, UsageError for a file
        without a conversation."""
        if not os.path.lexists(self._path):
            return False
        messages = model.load_prefix(self._path).get("messages")
        if fault := _fault(messages):
            raise UsageError(f"{self._path}: is not a conversation that --session saved: {fault}")
        assert isinstance(messages, list)
        self._saved = messages
        if messages and messages[0]["role"] == "system":
            conversation.begin(messages[0]["content"], messages[1:])
        else:
            conversation.begin(conversation.system, messages)
        return True

    def save(self, conversation: Conversation, model: "Model") -> None:
        """Write the conversation as it is now, if it has changed. Raises OutputError; then an older file stays."""
        messages = conversation.history()
        if messages == self._saved:
            return
        model.save_text(self._path, {"messages": messages})
        self._saved = messages
