"""The tools that a request offers, and which of them must or may be called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeq.serve.failures import invalid, unsupported

MOST = 512

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


@dataclass(frozen=True)
class Toolbox:
    """Tools in OpenAI's form.

    required  whether one must be called
    parallel  whether several may be
    """

    tools: Sequence[Mapping[str, Any]] = ()
    required: bool = False
    parallel: bool = True

    def __bool__(self) -> bool:
        return bool(self.tools)

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The schemas of the tools' arguments, by the tools' names: without arguments of other names, if they say
        nothing of these."""
        found = {tool["function"]["name"]: tool["function"]["parameters"] for tool in self.tools}
        return {name: {**schema, **_CLOSED} if schema.keys() <= _PLAIN else schema for name, schema in found.items()}

    @property
    def strict(self) -> frozenset[str]:
        """The tools of whose schemas nothing may be passed over."""
        return frozenset(tool["function"]["name"] for tool in self.tools if tool["function"].get("strict"))

    def only(self, name: str) -> "Toolbox":
        """One of the tools, which must be called, once. Raises Failure where it is not there."""
        found = [tool for tool in self.tools if tool["function"]["name"] == name]
        if not found:
            raise invalid(f"tool_choice asks for {name!r:.80}, which is not among tools", "tool_choice")
        return replace(self, tools=found, required=True, parallel=False)


NO_TOOLS = Toolbox()
_CLOSED = {"additionalProperties": False}
_PLAIN = {"type", "properties", "required", "title", "description", "$schema", "$defs", "definitions"}


def function(name: Any, description: Any, schema: Any, strict: Any = None, where: str = "tools") -> dict[str, Any]:
    """A tool in OpenAI's form. Raises Failure for a name or a schema that is none."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(f"{where}: the name is {name!r:.80}: give up to 128 letters, digits and _.:/-", "tools")
    if schema is not None and (not isinstance(schema, dict) or schema.get("type", "object") != "object"):
        raise invalid(f"{where}: the schema of {name}'s arguments must be that of a JSON object", "tools")
    said: dict[str, Any] = {"name": name}
    if isinstance(description, str):
        said["description"] = description
    said["parameters"] = schema or {"type": "object", "properties": {}}
    return {"type": "function", "function": {**said, **({"strict": True} if strict else {})}}


def offered(tools: Sequence[dict[str, Any]], parallel: bool | None = None) -> Toolbox:
    """Tools in OpenAI's form, as a toolbox. Raises Failure for too many, and for two of one name."""
    if len(tools) > MOST:
        raise invalid(f"tools has {len(tools)} entries: give at most {MOST}", "tools")
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise invalid(f"tools has two that are called {twice!r}", "tools")
    return Toolbox(tools, parallel=parallel is not False)


def openai_toolbox(tools: Any, choice: Any = None, parallel: bool | None = None) -> Toolbox:
    """The tools of a chat completion. Raises Failure for what is none, or cannot be followed."""
    box = offered([_openai_tool(i, tool) for i, tool in enumerate(tools or ())], parallel)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        names = [tool.get("name") or (tool.get("function") or {}).get("name") for tool in allowed.get("tools", ())]
        box = replace(box, tools=[tool for tool in box.tools if tool["function"]["name"] in names])
        choice = allowed.get("mode", "auto")
    if choice in (None, "auto"):
        return box
    if choice == "none":
        return NO_TOOLS
    if not box:
        raise invalid("tool_choice asks for a call, and tools is empty", "tool_choice")
    if choice in ("required", "any"):
        return replace(box, required=True)
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function")
        return box.only(str((named if isinstance(named, dict) else choice).get("name")))
    raise invalid(f"tool_choice is {choice!r:.80}: give none, auto, required or a function", "tool_choice")


def _openai_tool(number: int, tool: Any) -> dict[str, Any]:
    where = f"tools[{number}]"
    if not isinstance(tool, dict):
        raise invalid(f"{where} is no object", "tools")
    if tool.get("type", "function") != "function":
        raise unsupported(f"{where}.type {tool.get('type')!r:.40}", "give functions")
    said = tool.get("function")
    if not isinstance(said, dict):
        raise invalid(f"{where}.function is missing", "tools")
    return function(said.get("name"), said.get("description"), said.get("parameters"), said.get("strict"), where)
