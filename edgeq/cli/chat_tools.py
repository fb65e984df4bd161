"""Tools of a chat: public functions of a Python file, which the model calls where it is allowed to."""

import asyncio
import contextlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgeq.cli.chat_commands import tell
from edgeq.cli.options import read_text
from edgeq.errors import UsageError
from edgeq.printable import printable
from edgeq.talk.function_values import values_for
from edgeq.talk.functions import tool_of

if TYPE_CHECKING:
    from edgeq.engine.chat_answer import ToolCall

Function = Callable[..., Any]

ROUNDS = 10  # of calls for one message, at most
SHOWN = 300  # characters of arguments and of a result, at most
REFUSED = "The user did not allow this call."


class Tools:
    """Functions that a model may call.

    ask: shows a question, and gives what was typed; None where all calls are allowed
    """

    def __init__(self, functions: Mapping[str, Function], ask: Callable[[str], str] | None) -> None:
        self.functions = functions
        self.schemas = [tool_of(function) for function in functions.values()]
        self._ask = ask
        self._allowed: set[str] = set()  # names of those that need not ask any more

    def answer(self, call: "ToolCall", room: Callable[[str], bool]) -> dict[str, str]:
        """The message with a call's result, or with what kept it from having one; `room` says whether a text is short
        enough. Shows call and result in one line. Raises KeyboardInterrupt for a call that is stopped."""
        if not self._may(call):
            shown, said = "not allowed", REFUSED
        else:
            failed, said = self._run(call)
            if not room(said):
                failed, said = True, f"error: the result is too long ({len(said)} characters): ask for less"
            shown = f"failed: {said.removeprefix('error: ')}" if failed else f"-> {said}"
        tell(f"{printable(written(call), SHOWN)} {printable(shown, SHOWN)}", dim=True)
        return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": said}

    def _may(self, call: "ToolCall") -> bool:
        if self._ask is None or call.name in self._allowed:
            return True
        reply = self._ask(f"{printable(written(call))}: run it? [y]es, [N]o, [a]lways this one: ").strip().lower()
        if reply in ("a", "always"):
            self._allowed.add(call.name)
        return reply in ("y", "yes", "a", "always")

    def _run(self, call: "ToolCall") -> tuple[bool, str]:
        """Whether it failed, and the text that the model gets, which a conversation's file can hold: names of files may
        be none. What the function prints is no part of the answer."""
        failed, said = self._said(call)
        return failed, said.encode(errors="replace").decode()

    def _said(self, call: "ToolCall") -> tuple[bool, str]:
        try:
            function = self.functions[call.name]
            with contextlib.redirect_stdout(sys.stderr):
                result = function(**values_for(function, call.arguments))
                if inspect.iscoroutine(result):
                    result = asyncio.run(result)
            return False, result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        except (Exception, SystemExit) as error:
            return True, f"error: {type(error).__name__}: {error}"


def written(call: "ToolCall") -> str:
    """E.g. `area(width=3, height=4)`."""
    given = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(given)})"


def read_tools(paths: Sequence[Path]) -> dict[str, Function]:
    """The functions of files, by their names. Raises UsageError for a file that is none, fails, or has a function that
    cannot be a tool."""
    found: dict[str, Function] = {}
    for path in paths:
        for name, function in _functions(path).items():
            if name in found:
                raise UsageError(f"{path}: {name} is in another file, too: give one of them another name")
            found[name] = function
    return found


def _functions(path: Path) -> dict[str, Function]:
    module = _module(path)
    public: dict[str, Function] = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    if not public:
        raise UsageError(f"{path}: has no public function: write one with type hints and a docstring")
    for name, function in public.items():
        _check(path, name, function)
    return public


def _check(path: Path, name: str, function: Function) -> None:
    """UsageError for a function of which a model cannot be told."""
    otherwise = "begin its name with _ if it is no tool"
    if function.__name__ != name:
        raise UsageError(f"{path}: {name} is called {function.__name__}: write `def {name}`, or {otherwise}")
    if not (function.__doc__ or "").strip():
        raise UsageError(f"{path}: {name} has no docstring: say what it is for, or {otherwise}")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            raise UsageError(f"{path}: {name}: {parameter.name} has no type hint: write one, or {otherwise}")
    try:
        tool_of(function)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('tools: ')}") from None


def _module(path: Path) -> ModuleType:
    """The module that a file makes. Files beside it can be imported, after all others."""
    source = read_text(path)
    module = ModuleType(f"edgeq_tools_of_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look for it there
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(source, str(path), "exec"), vars(module))
    except SyntaxError as error:
        raise UsageError(f"{path}: line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise UsageError(f"{path}: {where}{type(error).__name__}: {printable(error, SHOWN)}") from None
    return module
