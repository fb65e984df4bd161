"""Chat templates: the Jinja programs in checkpoints that write a conversation as one prompt.

They come with a download and are not to be trusted: a process of its own runs them (template_process.py), in a sandbox
(sandbox.py).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from edgeq.errors import TemplateError, UsageError
from edgeq.text import template_process
from edgeq.vision.image_parts import ImagePart

_REASONING = ("reasoning_content", "thinking", "reasoning")  # names of an answer's reasoning, the best known first

_PROBE = "a text that is in no template"


class ChatTemplate:
    """A chat template, or several by name: "tool_use" is taken where tools are given, else "default"."""

    def __init__(self, source: str | Mapping[str, str], special_tokens: Mapping[str, str]):
        """`special_tokens` are variables of the template by role, e.g. {"bos_token": "<s>"}."""
        self._sources = {"default": source} if isinstance(source, str) else dict(source)
        self._special_tokens = dict(special_tokens)
        self._tried: dict[str, bool] = {}  # whether a template, by name, reads lists of parts

    @property
    def names(self) -> list[str]:
        """The names of the templates; ["default"] where there is one."""
        return list(self._sources)

    def source(self, name: str = "default") -> str:
        """The Jinja source of one template. Raises TemplateError for an unknown name."""
        if name not in self._sources:
            raise TemplateError(f"the model has no chat template named {name!r}: it has {', '.join(self._sources)}")
        return self._sources[name]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation, e.g. [{"role": "user", "content": "Hello"}].

        `add_generation_prompt` ends it with the opening of the assistant's answer. Further keywords become variables
        of the template (e.g. enable_thinking=False). Raises TemplateError for a malformed template, or where it
        refuses the conversation.
        """
        if not messages:
            raise TemplateError("the conversation is empty: give at least one message")
        if name is None:
            name = "tool_use" if tools is not None and "tool_use" in self._sources else "default"
        source = self.source(name)
        if self._reads_no_text(name):
            messages = [_in_parts(message) for message in messages]
        try:
            surroundings = {
                **self._special_tokens,
                **{key: _plain(value) for key, value in variables.items()},
                "messages": _messages(messages),
                "tools": _dictionaries("tools", tools),
                "documents": _dictionaries("documents", documents),
                "add_generation_prompt": add_generation_prompt,
            }
        except RecursionError:
            raise TemplateError("the conversation is nested too deeply for a chat template") from None
        return template_process.render(source, surroundings, datetime.now().isoformat())

    def with_plain_text(self, messages: Sequence[Mapping[str, Any]], tools: bool = False) -> list[Mapping[str, Any]]:
        """The conversation with contents that are lists of text parts, [{"type": "text", "text": "Hello"}], joined to
        one text each, unless the template reads lists. Images (ImagePart) stay parts. Raises UsageError for a
        part that is neither, and for images where the template reads no lists.
        """
        reads = self._reads_parts(tools) if any(_is_list(message.get("content")) for message in messages) else False
        texts = [_parts(i, message, reads) for i, message in enumerate(messages)]
        if reads:
            return list(messages)
        return [
            message if text is None else {**message, "content": "\n".join(text)}
            for message, text in zip(messages, texts, strict=True)
        ]

    def _reads_no_text(self, name: str) -> bool:
        """Whether the template writes nothing of a content that is no list of parts; tried, where it looks like one."""
        key = f"{name} without parts"
        if key not in self._tried:
            self._tried[key] = False
            if re.search(r"""['"]type['"]""", self.source(name)):
                texts = ([{"role": "user", "content": form}] for form in (_PROBE, [{"type": "text", "text": _PROBE}]))
                self._tried[key] = [self._writes_probe(text, name) for text in texts] == [False, True]
        return self._tried[key]

    def _writes_probe(self, talk: list[dict[str, Any]], name: str) -> bool:
        try:
            return _PROBE in self.render(talk, name=name)
        except TemplateError:
            return False

    def _reads_parts(self, tools: bool) -> bool:
        """Whether the template writes the text of a part, and not the list itself; tried, as nothing else tells."""
        name = "tool_use" if tools and "tool_use" in self._sources else "default"
        if name not in self._tried:
            talk = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
            try:
                prompt = self.render(talk, name=name)
                self._tried[name] = _PROBE in prompt and not re.search(r"""['"]type['"]""", prompt)
            except TemplateError:
                self._tried[name] = False
        return self._tried[name]


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation as templates expect it: fields that are None left out, an answer's reasoning under each name."""
    talk = []
    for message in messages:
        fields = {key: _plain(value) for key, value in message.items() if value is not None}
        reasoning = next((fields[name] for name in _REASONING if name in fields), None)
        if reasoning is not None:
            fields = {"thinking": reasoning, **fields, "reasoning_content": reasoning}
        talk.append(fields)
    return talk


def _is_list(content: Any) -> bool:
    return isinstance(content, list | tuple)


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a content that is a text as its one part."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _parts(index: int, message: Mapping[str, Any], images: bool = False) -> list[str] | None:
    """The texts of a message's parts; None where its content is no list. `images` may be among them."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return None
    texts = []
    for part in content:
        if images and isinstance(part, ImagePart):
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if not isinstance(part, Mapping) or kind not in (None, "text") or not isinstance(part.get("text"), str):
            raise UsageError(f"message {index + 1} has a part that is no text ({kind}): this reads text only")
        texts.append(part["text"])
    return texts


def _dictionaries(what: str, values: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    if values is not None and not all(isinstance(value, Mapping) for value in values):
        raise UsageError(f"{what} must be dictionaries, as in JSON: {_plain(values)!r:.80}")
    return None if values is None else [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A copy of JSON's types, which is all that a template may get hold of; anything else becomes its type's name."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum, too, what it stands for
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _plain(value.item())  # a NumPy scalar
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return f"<{type(value).__name__}>"
