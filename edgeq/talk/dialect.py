"""How one model speaks of thoughts and tools: read off its chat template, by its text and by trying it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from edgeq.errors import TemplateError
from edgeq.talk import call_formats
from edgeq.talk.calls import Call, Schemas, calls_of, write
from edgeq.talk.parser import Parser
from edgeq.talk.thinking import NONE, Thinking, thinking_of
from edgeq.text.chat import ChatTemplate

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_TALK = "a question that is in no template"
_RESULT = "an answer that is in no template"
_PROBE = Call("look_up", {"word": "zebra", "times": 3}, "abc123XYZ")
_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE.name,
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {
                "word": {"type": "string", "description": "The word"},
                "times": {"type": "integer", "description": "How often"},
            },
            "required": ["word"],
        },
    },
}
_HOW = """You have tools. Here are their names, what they do, and the JSON schemas of their arguments, one a line:
{tools}

To call a tool, write this, with its name and its arguments, and nothing after it:
{example}

What the tool says comes in the next message. Call one only where it helps; answer else."""


class Dialect:
    """The way of a model with this chat template.

    What the template does not write of tools is written for it, in words of ours: the list of them into the system's
    message, calls into the answers, what tools say into messages of the user.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        source = self._source = template.source("tool_use" if "tool_use" in template.names else template.names[0])
        plain = template.source("default") if "default" in template.names else source
        self.thinking: Thinking = thinking_of(source) if thinking_of(source) is not NONE else thinking_of(plain)
        self.calls = call_formats.format_of(source) or call_formats.GENERIC

    @property
    def thinks(self) -> bool:
        """Whether the model's template tells of thoughts."""
        return self.thinking is not NONE

    @cached_property
    def lists_tools(self) -> bool:
        """Whether the template writes a list of tools."""
        prompt = self._try([_user(_TALK)], [_TOOL])
        return prompt is not None and _PROBE.name in prompt and "zebra" not in prompt

    @cached_property
    def writes_calls(self) -> Callable[[Mapping[str, Any]], Any] | None:
        """How the template wants the arguments of a call: as a mapping, or as JSON; None where it writes no calls."""
        for form in (dict, _json):
            prompt = self._try([_user(_TALK), _assistant(_PROBE, form)], [_TOOL])
            if prompt is not None and _PROBE in self._read(prompt.partition(_TALK)[2]):
                return form
        return None

    @cached_property
    def writes_results(self) -> bool:
        """Whether the template writes what a tool says."""
        form = self.writes_calls
        if form is None:
            return False
        said = {"role": "tool", "tool_call_id": _PROBE.id, "name": _PROBE.name, "content": _RESULT}
        prompt = self._try([_user(_TALK), _assistant(_PROBE, form), said], [_TOOL])
        return prompt is not None and _RESULT in prompt

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        *,
        tools: Tools | None = None,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation, as `ChatTemplate.render`, messages and tools being as in OpenAI's API: the
        arguments of calls may be mappings or JSON. Raises TemplateError where the template refuses the conversation."""
        used = bool(tools) or any(m.get("role") == "tool" or m.get("tool_calls") for m in messages)
        talk = self._template.with_plain_text(messages, bool(tools))
        if not used:
            return self._template.render(talk, add_generation_prompt, **variables)
        talk = self._prepared(talk)
        listed = tools if tools and self.lists_tools else None
        if tools and listed is None:
            talk = _with_system(talk, self._described(tools))
        first: TemplateError | None = None
        for change in (_as_it_is, _with_short_ids, _with_descriptions, _without_system):
            talk, listed = change(talk, listed)
            try:
                return self._rendered(talk, add_generation_prompt, listed, variables)
            except TemplateError as error:
                first = first or error
        assert first is not None
        raise first

    def parser(self, prompt: str, tools: bool = True, schemas: Schemas | None = None, begun: str = "") -> Parser:
        """Reads the answer to a prompt; without `tools` no calls are looked for. `begun` is what of the answer the
        prompt holds."""
        calls = self.calls if tools else None
        if calls is not None and self.opens_call(prompt):
            begun = calls.trigger
        first = self.thinks and self.thinking.opened_by(prompt)
        return Parser(self.thinking, calls, thoughts_first=first, schemas=schemas, begun=begun)

    def opens_call(self, prompt: str) -> bool:
        """Whether an answer to this prompt begins within a call, or with the word that says that it is none."""
        return bool(self.calls.answer) and prompt.endswith(self.calls.trigger)

    def control_tokens(self) -> list[str]:
        """Marks of thoughts and calls, which a parser must see."""
        form, thinking = self.calls, self.thinking
        around = (form.before, form.between, form.after, form.opened, form.closed, form.separator, form.lead)
        texts = (*form.triggers, *form.instead, *form.arguments.marks, *around)
        return [*texts, thinking.opened, thinking.closed, *thinking.dropped]

    def _rendered(
        self, talk: Sequence[Message], add_generation_prompt: bool, tools: Tools | None, variables: Mapping[str, Any]
    ) -> str:
        more: dict[str, Any] = {}
        if tools:  # as templates name them that do not know `tools`
            whole = [*tools]
            more = {"xml_tools": whole, "functions": json.dumps(whole, indent=4), "datetime": f"{datetime.now():%c}"}
            more = {name: value for name, value in more.items() if name in self._source}
        return self._template.render(talk, add_generation_prompt, tools=tools, **{**more, **variables})

    def _try(self, talk: list[Message], tools: Tools) -> str | None:
        try:
            return self._rendered(talk, talk[-1]["role"] != "assistant", tools, {})
        except TemplateError:
            return None

    def _read(self, text: str) -> list[Call]:
        """The calls in what a template wrote."""
        parser = Parser(NONE, self.calls, schemas={_PROBE.name: _TOOL["function"]["parameters"]})  # type: ignore[index]
        if self.calls.bare:
            text = text[text.find("{") :]
        try:
            return [Call(c.name, c.arguments, _PROBE.id) for c in calls_of([*parser.push(text), *parser.end()])]
        except ValueError:
            return []

    def _prepared(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with calls and what tools say as this template writes them."""
        names: dict[Any, str] = {}
        talk: list[Message] = []
        for message in messages:
            calls = [_read_call(call) for call in message.get("tool_calls") or ()]
            names |= {call.id: call.name for call in calls}
            if calls and self.writes_calls is None:
                content = message.get("content") or ""
                plain = {k: v for k, v in message.items() if k != "tool_calls"}
                talk.append({**plain, "content": _joined(content, "\n\n" if content else "", write(self.calls, calls))})
            elif calls:
                form = self.writes_calls
                assert form is not None
                talk.append({**message, "tool_calls": [_call(call, form) for call in calls]})
            elif message.get("role") == "tool" and not self.writes_results:
                said = _joined("<tool_response>\n", message.get("content"), "\n</tool_response>")
                if talk and talk[-1].get("role") == "user":
                    talk[-1] = {**talk[-1], "content": _joined(talk[-1]["content"], "\n", said)}
                else:
                    talk.append(_user(said))
            elif message.get("role") == "tool" and not message.get("name") and message.get("tool_call_id") in names:
                talk.append({**message, "name": names[message["tool_call_id"]]})
            else:
                talk.append(message)
        return talk

    def _described(self, tools: Tools) -> str:
        """What the model is told of tools where its template tells it nothing."""
        lines = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
        return _HOW.format(tools=lines, example=write(self.calls, [Call("NAME", {"ARGUMENT": "VALUE"}, "abc123XYZ")]))


def _user(content: Any) -> Message:
    return {"role": "user", "content": content}


def _joined(*contents: Any) -> str | list[Any]:
    """Contents one after the other: a text, or the parts of all where one is a list of parts."""
    if not any(isinstance(content, list) for content in contents):
        return "".join(map(str, contents))
    parts = ([*one] if isinstance(one, list) else [{"type": "text", "text": one}] for one in contents if one)
    return [part for some in parts for part in some]


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _call(call: Call, form: Callable[[Mapping[str, Any]], Any]) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": form(call.arguments)}}


def _assistant(call: Call, form: Callable[[Mapping[str, Any]], Any]) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": [_call(call, form)]}


def _read_call(call: Mapping[str, Any]) -> Call:
    """A call in OpenAI's form. Raises TemplateError for arguments that are no JSON object."""
    function = call.get("function", {})
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            arguments = 0
    if arguments is not None and not isinstance(arguments, Mapping):
        raise TemplateError(f"the arguments of a call of {function.get('name')!r:.80} are no JSON object")
    return Call(str(function.get("name")), arguments or {}, str(call.get("id") or ""))


Change = tuple[list[Message], Tools | None]


def _as_it_is(talk: list[Message], tools: Tools | None) -> Change:
    return talk, tools


def _with_short_ids(talk: list[Message], tools: Tools | None) -> Change:
    """Ids of nine letters and digits, as Mistral's templates want them."""
    numbers: dict[Any, str] = {}

    def short(id: Any) -> str:
        if isinstance(id, str) and _SHORT_ID.fullmatch(id):
            return id
        return numbers.setdefault(id, f"call{len(numbers):05}")

    changed: list[Message] = []
    for message in talk:
        if message.get("tool_calls"):
            calls = [{**call, "id": short(call.get("id"))} for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        elif message.get("role") == "tool":
            message = {**message, "tool_call_id": short(message.get("tool_call_id"))}
        changed.append(message)
    return changed, tools


def _with_descriptions(talk: list[Message], tools: Tools | None) -> Change:
    """Tools whose parts are all described, if by nothing."""

    def described(part: Mapping[str, Any]) -> dict[str, Any]:
        return {"description": "", **part}

    def one(tool: Mapping[str, Any]) -> Mapping[str, Any]:
        function = described(tool.get("function", {}))
        schema = function.get("parameters") or {}
        properties = {k: described(v) for k, v in (schema.get("properties") or {}).items() if isinstance(v, Mapping)}
        return {**tool, "function": {**function, "parameters": {"type": "object", **schema, "properties": properties}}}

    return talk, None if tools is None else [one(tool) for tool in tools]


def _without_system(talk: list[Message], tools: Tools | None) -> Change:
    """The system's message within the first of the user."""
    if len(talk) < 2 or talk[0].get("role") != "system" or talk[1].get("role") != "user":
        return talk, tools
    return [_user(_joined(talk[0]["content"], "\n\n", talk[1]["content"])), *talk[2:]], tools


def _with_system(talk: list[Message], text: str) -> list[Message]:
    """The conversation with a text at the end of the system's message."""
    if talk and talk[0].get("role") == "system":
        return [{**talk[0], "content": _joined(talk[0].get("content") or "", "\n\n", text)}, *talk[1:]]
    return [{"role": "system", "content": text}, *talk]
