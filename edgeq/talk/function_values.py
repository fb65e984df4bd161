"""What a model gives to a Python function: JSON's values as the types that the function's hints name."""

import collections.abc as abc
import dataclasses
import datetime
import enum
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}
_LISTS: dict[Any, Callable[[list[Any]], Any]] = {set: set, frozenset: frozenset, abc.Set: frozenset, tuple: tuple}
_SEQUENCES = (list, abc.Sequence, abc.Iterable, abc.Collection)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)


def values_for(call: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, as the function takes them: dates, enums, sets, dataclasses, ... Raises ValueError or
    TypeError for what is no value of its type."""
    hints = typing.get_type_hints(call, include_extras=True)
    found = {}
    for name, value in arguments.items():
        try:
            found[name] = _value(value, hints.get(name, Any))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
    return found


def _value(value: Any, kind: Any) -> Any:
    origin, kinds = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _value(value, kinds[0])
    if origin in (typing.Union, types.UnionType):
        return _of_any(value, kinds)
    if kind in (None, types.NoneType):
        return _checked(value, value is None, "null")
    plain = origin or kind
    if plain in _PLAIN:
        fits = isinstance(value, _PLAIN[plain]) and (plain is bool or not isinstance(value, bool))
        return plain(_checked(value, fits, plain.__name__))
    if plain in (datetime.date, datetime.datetime):
        return plain.fromisoformat(_checked(value, isinstance(value, str), "text"))
    if plain in _LISTS or plain in _SEQUENCES:
        items = _checked(value, isinstance(value, list), "list")
        each = kinds if plain is tuple and kinds[-1:] != (...,) and kinds else kinds[:1] * len(items)
        if len(each or items) != len(items):
            raise ValueError(f"it must have {len(each)} values")
        return _LISTS.get(plain, list)([_value(*pair) for pair in zip(items, each, strict=True)] if each else items)
    if plain in _MAPPINGS:
        given = _checked(value, isinstance(value, dict), "object")
        return {name: _value(one, kinds[1]) for name, one in given.items()} if kinds else given
    return _of_class(value, kind) if isinstance(kind, type) else value


def _of_class(value: Any, kind: type) -> Any:
    if issubclass(kind, enum.Enum):
        return kind(value)
    if hasattr(kind, "model_validate"):  # Pydantic's
        return kind.model_validate(value)
    if not typing.is_typeddict(kind) and not dataclasses.is_dataclass(kind):
        return value
    hints = typing.get_type_hints(kind, include_extras=True)
    given = _checked(value, isinstance(value, dict), "object")
    return kind(**{name: _value(one, hints.get(name, Any)) for name, one in given.items()})


def _of_any(value: Any, kinds: tuple[Any, ...]) -> Any:
    """As the first of the types that it is a value of."""
    for kind in kinds:
        try:
            return _value(value, kind)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"{value!r:.80} is of none of the types that it may have")


def _checked(value: Any, fits: bool, wanted: str) -> Any:
    if not fits:
        raise TypeError(f"{value!r:.80} is no {wanted}")
    return value
