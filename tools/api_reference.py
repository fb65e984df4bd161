"""The reference of the Python API, made from signatures and docstrings.

    python tools/api_reference.py [--write]

Prints it, or writes it into edgeq/docs/api.md. It holds every name of `edgeq.__all__`: functions, classes with their
public members, errors with what they derive from.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, Unpack, get_args, get_origin, get_type_hints, is_typeddict

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "edgeq" / "docs" / "api.md"
sys.path.insert(0, str(REPOSITORY))

import edgeq  # noqa: E402
from edgeq.decode.sampler_steps import Sampling, options  # noqa: E402
from edgeq.system.output import write_file  # noqa: E402

_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])")


def typed_dict(found: Any) -> type | None:
    """The TypedDict whose keys are unpacked, if it is one."""
    return next((kind for kind in get_args(found) if is_typeddict(kind)), None) if get_origin(found) is Unpack else None


def annotation(found: Any) -> str:
    """A type as it is written, without the modules that its names come from."""
    if (options := typed_dict(found)) is not None:
        return f"Unpack[{options.__name__}]"
    text = found if isinstance(found, str) else inspect.formatannotation(found)
    return _MODULES.sub("", text).replace("'", "").replace('"', "")


def signature(name: str, function: Any) -> str:
    """`name(parameters) -> result`, on lines of their own where they are long."""
    found = inspect.signature(function)
    parts, keyword_only = [], False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = star + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        parts.append(text)
    result = "" if found.return_annotation is found.empty else f" -> {annotation(found.return_annotation)}"
    line = f"{name}({', '.join(parts)}){result}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def keywords(function: Any) -> str:
    """What a `**` parameter takes, where its type says so."""
    for parameter in inspect.signature(function).parameters.values():
        if (options := typed_dict(parameter.annotation)) is not None:
            keys = ", ".join(f"`{key}: {annotation(kind)}`" for key, kind in get_type_hints(options).items())
            return textwrap.fill(f"`**{parameter.name}` takes {keys}.", 100, break_long_words=False)
    return ""


def documented(code: str, *texts: str | None) -> str:
    """A piece of code, and what is to be said of it."""
    return "\n\n".join((f"```python\n{code}\n```", *(text for text in texts if text)))


def members(cls: type) -> Iterator[str]:
    """The public methods and properties of a class, its own and inherited ones of edgeq, in the source's order."""
    found: dict[str, Any] = {}
    for base in reversed([base for base in cls.__mro__ if base.__module__.startswith("edgeq")]):
        found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    for name, value in found.items():
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        getter = getattr(value, "fget", None) or getattr(value, "func", None)  # of a property, a cached one
        if isinstance(value, FunctionType):
            yield f"### `{cls.__name__}.{name}`"
            yield documented(signature(name, value), inspect.getdoc(value), keywords(value))
        elif getter:
            yield f"### `{cls.__name__}.{name}`"
            kind = inspect.signature(getter).return_annotation
            yield documented(f"{name}: {annotation(kind)}", inspect.getdoc(getter))


def sampling() -> str:
    """A table of the sampling options."""
    rows = ["| option | default | what it may be | what it does |", "|---|---|---|---|"]
    for name, option in options().items():
        rows.append(f"| `{name}` | {option.default} | {option.must} | {option.help} |")
    return "\n".join(rows)


def section(name: str) -> str:
    """All about one name."""
    found = getattr(edgeq, name)
    if found is Sampling:
        return f"## `{name}`\n\n{documented(f'class {name}', inspect.getdoc(found), sampling())}"
    if inspect.isclass(found):
        code = signature(name, found) if dataclasses.is_dataclass(found) else f"class {name}"
        return "\n\n".join((f"## `{name}`", documented(code, inspect.getdoc(found)), *members(found)))
    return "\n\n".join((f"## `{name}`", documented(signature(name, found), inspect.getdoc(found), keywords(found))))


def errors(names: list[str]) -> str:
    """A table of the errors."""
    rows = ["| error | derives from | meaning |", "|---|---|---|"]
    for name in names:
        found = getattr(edgeq, name)
        bases = ", ".join(f"`{base.__name__}`" for base in found.__bases__)
        meaning = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
        rows.append(f"| `{name}` | {bases} | {meaning} |")
    return "## Errors\n\n" + "\n".join(rows)


def page() -> str:
    """The whole reference."""
    names = [name for name in edgeq.__all__ if not name.startswith("_")]
    failures = [
        name for name in names if inspect.isclass(found := getattr(edgeq, name)) and issubclass(found, Exception)
    ]
    others = sorted((name for name in names if name not in failures), key=lambda name: (name[0].isupper(), name))
    head = "# The Python API\n\n<!-- made by tools/api_reference.py -->"
    return "\n\n".join((head, inspect.getdoc(edgeq) or "", *map(section, others), errors(failures))) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write it into edgeq/docs/api.md")
    if parser.parse_args().write:
        write_file(PAGE, page().encode())
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
