"""The tools that a model may call, and which of them it must."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeq.talk.refused import Refused

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
        """One of the tools, which must be called, once. Raises Refused where it is not there."""
        self._check_there()
        found = [tool for tool in self.tools if tool["function"]["name"] == name]
        if not found:
            raise Refused(f"tool_choice asks for {name!r:.80}, which is not among tools", "tool_choice")
        return replace(self, tools=found, required=True, parallel=False)

    def chosen(self, choice: str) -> "Toolbox":
        """These tools for a choice: "auto", "none", "required" or a tool's name. Raises Refused for a call that is
        asked for where there are no tools."""
        if choice == "auto":
            return self
        if choice == "none":
            return NO_TOOLS
        if choice not in ("required", "any"):
            return self.only(choice)
        self._check_there()
        return replace(self, required=True)

    def _check_there(self) -> None:
        if not self:
            raise Refused("tool_choice asks for a call, and tools is empty", "tool_choice")


NO_TOOLS = Toolbox()
_CLOSED = {"additionalProperties": False}
_PLAIN = {"type", "properties", "required", "title", "description", "$schema", "$defs", "definitions"}


def function(name: Any, description: Any, schema: Any, strict: Any = None, where: str = "tools") -> dict[str, Any]:
    """A tool in OpenAI's form. Raises Refused for a name or a schema that is none."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(f"{where}: the name is {name!r:.80}: give up to 128 letters, digits and _.:/-", "tools")
    if schema is not None and (not isinstance(schema, Mapping) or schema.get("type", "object") != "object"):
        raise Refused(f"{where}: the schema of {name}'s arguments must be that of a JSON object", "tools")
    said: dict[str, Any] = {"name": name}
    if isinstance(description, str):
        said["description"] = description
    said["parameters"] = schema or {"type": "object", "properties": {}}
    return {"type": "function", "function": {**said, **({"strict": True} if strict else {})}}


def offered(tools: Sequence[dict[str, Any]], parallel: bool | None = None) -> Toolbox:
    """Tools in OpenAI's form, as a toolbox. Raises Refused for too many, and for two of one name."""
    if len(tools) > MOST:
        raise Refused(f"tools has {len(tools)} entries: give at most {MOST}", "tools")
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refused(f"tools has two that are called {twice!r}", "tools")
    return Toolbox(tools, parallel=parallel is not False)


def described(tool: Any, where: str) -> dict[str, Any]:
    """A tool that is described as in OpenAI's API, checked. Raises Refused for what is none."""
    if not isinstance(tool, Mapping):
        raise Refused(f"{where} is no object", "tools")
    if tool.get("type", "function") != "function":
        kind = tool.get("type")
        raise Refused(f"{where}.type {kind!r:.40} is not supported: give functions", "tools", "unsupported_parameter")
    said = tool.get("function")
    if not isinstance(said, Mapping):
        raise Refused(f"{where}.function is missing", "tools")
    return function(said.get("name"), said.get("description"), said.get("parameters"), said.get("strict"), where)
