"""Where chat templates run: Jinja's sandbox as Hugging Face sets it up, with bounds on time and memory.

A template comes with a download. The sandbox keeps it from files, imports and Python's insides; the bounds keep it from
running for ever or filling the memory, as far as that can be told from within: template_process.py has limits for the
rest. They hold for one rendering and count what the template makes (characters of strings, entries of lists) and the
processor time between the steps of its loops and macros. Whatever could make much in a single step (`'a' * n`,
`'%999999d'`, `x.ljust(n)`) is weighed before it happens.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

CHARACTERS = 1 << 27  # made in one rendering, intermediate strings included
LARGEST_ARGUMENT = 100_000  # of a filter or method: a width, a count, a number of digits. Jinja bounds range() alike
LARGEST_BITS = 100_000  # of a whole number

_WIDTH = re.compile(r"\d{6,}")
_ENTRY = 64  # characters that an entry of a list or dictionary counts for: it costs as much time to look at
# Filters that hand on or count what they get, and write none of it: no need to weigh that.
_UNWRITTEN = {
    *("abs", "attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last"),
    *("length", "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "round", "select"),
    *("selectattr", "slice", "sort", "sum", "unique"),
}
# Filters and methods whose result may be as long as their value times an argument.
_GROWING = {
    *(
        "%",
        "expandtabs",
        "format",
        "format_map",
        "indent",
        "join",
        "replace",
        "tojson",
        "translate",
        "truncate",
        "urlize",
        "wordwrap",
        "xmlattr",
    )
}


class _Budget:
    """What one rendering may still use."""

    def __init__(self, seconds: float) -> None:
        self.characters, self.seconds = CHARACTERS, seconds
        self.deadline = time.thread_time() + seconds

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise SecurityError(f"it writes more than {CHARACTERS >> 20} million characters")
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it takes longer than {self.seconds:g} seconds")


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """One rendering: within, SecurityError is raised for a template that asks for too much, of processor time too."""
    token = _budget.set(_Budget(seconds))
    try:
        yield
    finally:
        _budget.reset(token)


def _spend(characters: int) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.spend(characters)


def _weight(value: Any) -> int:
    """Characters of a value when written, roughly, at least; counting ends where there are too many.

    A list that holds one list twice, which holds another one twice, and so on, is small in memory but not when written.
    """
    total, waiting = 0, [value]
    while waiting and total <= CHARACTERS:
        item = waiting.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, dict):
            total += _ENTRY * len(item)
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            total += _ENTRY * len(item)
            waiting += item
        elif isinstance(item, Namespace):
            total += _ENTRY  # written as its name and contents
            waiting.append(object.__getattribute__(item, "_Namespace__attrs"))
        else:
            total += 2
    return total


def _made(value: Any) -> Any:
    """The value, its size counted."""
    if isinstance(value, str | bytes):
        _spend(len(value))
    elif isinstance(value, list | tuple):
        _spend(8 * len(value))  # bytes of memory
    return value


def _check(name: str, value: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse a filter or method call whose result could be far larger than what it gets."""
    numbers = [a for a in arguments if isinstance(a, int)]
    if any(abs(number) > LARGEST_ARGUMENT for number in numbers) and name not in ("d", "default"):
        raise SecurityError(f"{name} has an argument above {LARGEST_ARGUMENT}")
    if name in ("format", "format_map"):
        _check_format(value)
    if name in _GROWING:
        # a number counts where that many characters may come again and again
        repeats = name in ("expandtabs", "indent", "tojson")
        longest = max(
            (abs(a) if isinstance(a, int) else _weight(a) for a in arguments if repeats or not isinstance(a, int)),
            default=0,
        )
        if (_weight(value) + 1) * (longest + 1) > CHARACTERS:
            raise SecurityError(f"{name} would write more than {CHARACTERS >> 20} million characters")


def _check_format(layout: Any) -> None:
    text = layout if isinstance(layout, str) else layout.decode("latin-1") if isinstance(layout, bytes) else ""
    nested = re.search(r"\{[^{}]*:[^{}]*\{", text.replace("{{", "").replace("}}", ""))  # a width that is an argument
    if nested or _WIDTH.search(text):
        raise SecurityError("a format has a width above 99999, or one that is not written out")


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0  # the environment or context that Jinja hands in

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if name == "join" and len(args) > first:
            args = (*args[:first], list(args[first]), *args[first + 1 :])  # weighing would use up a generator
        if len(args) > first:
            _check(name, args[first], (*args[first + 1 :], *kwargs.values()))
            if name not in _UNWRITTEN:
                _spend(_weight(args[first]))
        return _made(function(*args, **kwargs))

    return run


class _Bounds(NodeTransformer):
    """Puts the counting into a template: at each turn of a loop, each call of a macro, and around what ~ joins."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._count(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._count(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._count(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_call("written", part, node.lineno) for part in node.nodes]
        return node

    def _count(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        text = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        step = _call("step", nodes.Const(text, lineno=node.lineno), node.lineno)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node  # type: ignore[no-any-return]


def _call(method: str, argument: nodes.Expr, line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method, lineno=line), [argument], [], None, None, lineno=line)


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks an answer for training; its body is a scope of its own."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _text(self, context: EvalContext, caller: Macro) -> str:
        return caller()


class _Dict:
    """`dict` in templates: makes dictionaries, and has nothing else of Python's class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` in templates; names that begin with an underscore are refused, as Python's insides are."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # without a `self`, so that namespace(self=1) works
        own, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(own, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}, which begins with an underscore")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's environment for chat templates, with the bounds. Rendering needs `bounded` around it."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
            finalize=self.written,
        )
        del self.globals["lipsum"]  # random text of any length
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace
        self.filters = {name: _bounded_filter(name, function) for name, function in FILTERS.items()}

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """A filter of our own, under the same bounds."""
        self.filters[name] = _bounded_filter(name, function)

    def step(self, characters: int) -> None:
        """A turn of a loop or a call of a macro begins; its constant text has so many characters."""
        _spend(characters)

    def written(self, value: Any) -> Any:
        """The value, which is about to become part of a longer text."""
        _spend(_weight(value))
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        template.set_environment(self)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str | bytes):
            _check_format(left)
            _check("%", left, right if isinstance(right, tuple) else (right,))
        elif operator in ("*", "**"):
            _check_product(operator, left, right)
        return _made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped by the sandbox
        if isinstance(method, BuiltinMethodType):
            if method.__name__ == "join":
                args = tuple(a if isinstance(a, str) else list(a) for a in args)
            _check(method.__name__, method.__self__, (*args, *kwargs.values()))
        return _made(super().call(__context, __obj, *args, **kwargs))


def _check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > LARGEST_BITS:
            raise SecurityError(f"it computes with numbers of more than {LARGEST_BITS} bits")
    elif operator == "*":
        text, count = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(text, str | bytes | list | tuple) and isinstance(count, int) and len(text) * count > CHARACTERS:
            raise SecurityError(f"it writes more than {CHARACTERS >> 20} million characters")
