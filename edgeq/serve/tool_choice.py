"""The tools that a request of OpenAI's APIs offers, and which of them must or may be called."""

from dataclasses import replace
from typing import Any

from edgeq.serve.failures import invalid
from edgeq.talk.toolbox import Toolbox, described, offered


def openai_toolbox(tools: Any, choice: Any = None, parallel: bool | None = None) -> Toolbox:
    """The tools of a chat completion. Raises Refused or Failure for what is none, or cannot be followed."""
    box = offered([described(tool, f"tools[{i}]") for i, tool in enumerate(tools or ())], parallel)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        names = [tool.get("name") or (tool.get("function") or {}).get("name") for tool in allowed.get("tools", ())]
        box = replace(box, tools=[tool for tool in box.tools if tool["function"]["name"] in names])
        choice = allowed.get("mode", "auto")
    if choice in (None, "auto", "none", "required", "any"):
        return box.chosen(choice or "auto")
    if isinstance(choice, dict) and choice.get("type") == "function":
        named = choice.get("function")
        return box.only(str((named if isinstance(named, dict) else choice).get("name")))
    raise invalid(f"tool_choice is {choice!r:.80}: give none, auto, required or a function", "tool_choice")
