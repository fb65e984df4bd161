"""What is said in a conversation stays text, also where it is the name of a token that only the template may write."""

from collections.abc import Mapping, Sequence
from typing import Any


def holds(value: Any, names: Sequence[str]) -> bool:
    """Whether one of the names is in a text of a value of JSON's types."""
    if isinstance(value, str):
        return any(name in value for name in names)
    if isinstance(value, Mapping):
        return any(holds(key, names) or holds(one, names) for key, one in value.items())
    return isinstance(value, list | tuple) and any(holds(one, names) for one in value)


def marked(value: Any, names: Sequence[str], mark: str) -> Any:
    """The value with a mark behind the first character of each name in its texts; what holds no name stays as it is."""
    if not holds(value, names):
        return value
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, f"{name[0]}{mark}{name[1:]}")
        return value
    if isinstance(value, Mapping):
        return {marked(key, names, mark): marked(one, names, mark) for key, one in value.items()}
    return [marked(one, names, mark) for one in value]
