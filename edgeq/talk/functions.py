"""Python functions as tools: what their names, type hints and docstrings tell a model."""

import collections.abc as abc
import dataclasses
import datetime
import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeq.errors import UsageError
from edgeq.talk.toolbox import described, function

Schema = dict[str, Any]

_PLAIN: dict[Any, Schema] = {
    Any: {},
    object: {},
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    types.NoneType: {"type": "null"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.datetime: {"type": "string", "format": "date-time"},
}
_LISTS = (list, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection, abc.Set)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)

_SECTION = re.compile(r"(Args|Arguments|Parameters|Params|Returns?|Yields?|Raises|Examples?|Notes?|Attributes):?[ \t]*")
_ARGUMENTS = ("Args", "Arguments", "Parameters", "Params")
_GOOGLE = re.compile(r"(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)")
_CHOICES = re.compile(r"\s*\(choices:\s*(\[.*\])\s*\)\s*$")


def tools_of(tools: Sequence[Mapping[str, Any] | Callable[..., Any]]) -> list[dict[str, Any]]:
    """Tools in OpenAI's form: dicts that are, or are the `function` of such a one, and Python functions. Raises
    UsageError for what is neither."""
    if isinstance(tools, Mapping | str) or not isinstance(tools, Sequence):
        raise UsageError("tools must be a list of functions, or of dicts as OpenAI's API has them")
    found = []
    for i, tool in enumerate(tools):
        if callable(tool):
            found.append(tool_of(tool))
        else:
            bare = isinstance(tool, Mapping) and "name" in tool and "function" not in tool
            found.append(described({"function": tool} if bare else tool, f"tools[{i}]"))
    return found


def tool_of(call: Callable[..., Any]) -> dict[str, Any]:
    """A Python function as a tool in OpenAI's form. Its arguments are those that can be given by name; what has a
    default may be left out. Descriptions are those of the docstring (Google's style or Sphinx') or of `Annotated`.
    Raises UsageError for a type that JSON has no form for."""
    name = getattr(call, "__name__", "")
    try:
        parameters = inspect.signature(call).parameters.values()
        hints = typing.get_type_hints(call, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise UsageError(f"tools: {name or repr(call):.80} cannot be read as a function: {error}") from None
    text, arguments = _docstring(inspect.getdoc(call) or "")
    properties: dict[str, Schema] = {}
    required = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise UsageError(f"tools: {name}: {parameter.name} cannot be given by name: make it a usual argument")
        where = f"{name}: {parameter.name}"
        own = _schema(_without_none(hints.get(parameter.name, Any), parameter.default), where)
        told = arguments.get(parameter.name, "")
        if choices := _CHOICES.search(told):
            told, own = told[: choices.start()], {**own, "enum": _choices(choices[1], where)}
        properties[parameter.name] = {**own, **({"description": told} if told else {})}
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema: Schema = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    if definitions := _definitions(properties):
        schema["$defs"] = definitions
    return function(name, text or None, schema, where=f"tools: {name or 'a function'}")


def _definitions(schema: Any) -> Schema:
    """What is defined within a schema, taken out of it: references look for it at the top."""
    found: Schema = {}
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        if isinstance(one, dict):
            found |= one.pop("$defs", {})
        found |= _definitions(one)
    return found


def _without_none(kind: Any, default: Any) -> Any:
    """A type without the None that is there for the default."""
    kinds = typing.get_args(kind)
    if default is not None or typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    return typing.Union[tuple(one for one in kinds if one is not types.NoneType)]  # noqa: UP007


def _schema(kind: Any, where: str) -> Schema:
    """The schema of a type's values."""
    if isinstance(kind, abc.Hashable) and kind in _PLAIN:
        return _PLAIN[kind]
    origin, kinds = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        told = next((one for one in kinds[1:] if isinstance(one, str)), None)
        return {**_schema(kinds[0], where), **({"description": told} if told else {})}
    if origin in (typing.Required, typing.NotRequired):
        return _schema(kinds[0], where)
    if origin is typing.Literal:
        return {"enum": list(kinds)}
    if origin in (typing.Union, types.UnionType):
        return _any_of([_schema(one, where) for one in kinds])
    plain = origin or kind
    if plain is tuple:
        return _tuple(kinds, where)
    if plain in _LISTS:
        return {"type": "array", **({"items": _schema(kinds[0], where)} if kinds else {})}
    if plain in _MAPPINGS:
        return {"type": "object", **({"additionalProperties": _schema(kinds[1], where)} if kinds else {})}
    if isinstance(kind, type) and (found := _class(kind, where)) is not None:
        return found
    shown = kind.__name__ if isinstance(kind, type) else str(kind)
    raise UsageError(f"tools: {where} is a {shown:.80}, which JSON has no form for: take str, int, list, dict, ...")


def _tuple(kinds: tuple[Any, ...], where: str) -> Schema:
    if not kinds or kinds[-1] is Ellipsis:
        return {"type": "array", **({"items": _schema(kinds[0], where)} if kinds else {})}
    items, size = [_schema(one, where) for one in kinds], len(kinds)
    return {"type": "array", "prefixItems": items, "items": False, "minItems": size, "maxItems": size}


def _class(kind: type, where: str) -> Schema | None:
    """The schema of a class that describes values; None for one that does not."""
    if issubclass(kind, enum.Enum):
        return {"enum": [one.value for one in kind]}
    if hasattr(kind, "model_json_schema"):  # Pydantic's
        return dict(kind.model_json_schema())
    if typing.is_typeddict(kind):
        required = sorted(kind.__required_keys__)  # type: ignore[attr-defined]
    elif dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        fields = dataclasses.fields(kind)
        required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    else:
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    properties = {name: _schema(one, f"{where}.{name}") for name, one in hints.items()}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _any_of(schemas: list[Schema]) -> Schema:
    """Values of any of these: in one word where each is but a type."""
    if {} in schemas:
        return {}
    if all(schema.keys() == {"type"} for schema in schemas):
        names = [schema["type"] for schema in schemas]
        return {"type": names if len(names) > 1 else names[0]}
    return {"anyOf": schemas} if len(schemas) > 1 else schemas[0]


def _choices(text: str, where: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except ValueError:
        raise UsageError(f"tools: {where}: choices in the docstring are no JSON: {text:.80}") from None


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each argument."""
    told, arguments = list[str](), dict[str, str]()
    section = name = ""
    deep = 0
    for line in text.splitlines():
        heading = _SECTION.fullmatch(line)
        sphinx = _SPHINX.match(line.strip())
        if heading and line.rstrip().endswith(":"):
            section, name = heading[1], ""
        elif sphinx:
            section, name = "Sphinx", sphinx[1]
            arguments[name] = sphinx[2]
        elif line.startswith(":"):  # :return:, :rtype:
            section, name = "Sphinx", ""
        elif section in _ARGUMENTS and (found := _GOOGLE.fullmatch(line)) and (not name or len(found[1]) <= deep):
            deep, name = len(found[1]), found[2]
            arguments[name] = found[3]
        elif section and line.strip():
            if name:
                arguments[name] = f"{arguments[name]} {line.strip()}".strip()
        elif not section:
            told.append(line)
    return "\n".join(told).strip(), arguments
