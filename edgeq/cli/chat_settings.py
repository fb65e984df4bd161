"""What /set changes: the options of sampling, while a conversation goes on."""

import contextlib
import difflib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from edgeq.cli.options import unescaped
from edgeq.decode.option import Option
from edgeq.decode.sampler_steps import checked, names, options
from edgeq.decode.stops import StopStrings
from edgeq.errors import UsageError

DEFAULT = "default"
LIMITS = ("n_predict", "num_predict")  # what other programs call max_tokens
Reader = Callable[[str], Any]


def _stops(text: str) -> list[str]:
    r"""A text as it is, with \n and \t for line end and tab; or one or several in JSON's quotes."""
    if text.startswith('"'):
        return [json.loads(text)]
    with contextlib.suppress(ValueError, RecursionError):
        stops = json.loads(text)
        if isinstance(stops, list) and all(isinstance(stop, str) for stop in stops):
            return stops
    return [unescaped(text)]


_WANTED = {float: "a number", int: "a whole number"}


def settings() -> dict[str, tuple[Reader, str]]:
    """Name -> how its text is read, and what must be written there."""
    found: dict[str, tuple[Reader, str]] = {}
    for name, option in options().items():
        if option.is_number:
            found[name] = (partial(_number, option), _WANTED[option.kind])
        elif option.read is not None:
            found[name] = (partial(_listed, option.read), option.must)
    return {**found, "max_tokens": (_limit, _WANTED[int]), "stop": (_stops, 'a text, or ["one", "another"]')}


def _number(option: Option[Any], text: str) -> Any:
    """What a number stands for; None for the default."""
    value = option.kind(text)
    return option.means.get(value, value)


def _limit(text: str) -> int | None:
    """A number of tokens; None where -1 says that there is no limit."""
    return None if int(text) == -1 else int(text)


def _listed(read: Callable[[list[str]], Any], text: str) -> Any:
    return read(_stops(text))


def change(given: dict[str, Any], text: str) -> str:
    """Set an option in `given`, e.g. "top_k 20", or give it back to its default: "top_k default". The option's name.

    Raises UsageError, and changes nothing, for an unknown name or a value that cannot work.
    """
    written, _, value = text.partition(" ")
    name, value = option_name(written), value.strip()
    read, wanted = settings()[name]
    if not value:
        raise UsageError(f"usage: /set {name} VALUE, or /set {name} {DEFAULT}")
    try:
        new = None if value == DEFAULT else read(value)
    except ValueError:
        raise UsageError(f"{name} is {value!r}: it must be {wanted}") from None
    if new is None:
        given.pop(name, None)
        return name
    _check({**given, name: new})
    given[name] = new
    return name


def option_name(written: str) -> str:
    """The name of an option, which may be written as on the command line. UsageError for an unknown one."""
    name = _plain(written)
    name = "max_tokens" if name in LIMITS else names().get(name, name)
    if name not in (known := settings()):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "/set lists them"
        raise UsageError(f"{written}: no such option; {hint}")
    return name


def _plain(flag: str) -> str:
    return flag.lower().lstrip("-").replace("-", "_")


def shown(given: Mapping[str, Any], own: Mapping[str, Any], name: str) -> str:
    """An option and its value, a line; `own` are the model's, where nobody sets it."""
    option = options().get(name)
    value = given.get(name, own.get(name, option.default if option else None))
    text = "none" if value in (None, ()) else json.dumps(value, ensure_ascii=False) if name == "stop" else str(value)
    whose = "" if name in given else " (the model's)" if name in own else f" ({DEFAULT})"
    return f"{name:23}{text}{whose}"


def _check(given: dict[str, Any]) -> None:
    """UsageError for what a generation would refuse."""
    checked({name: value for name, value in given.items() if name in options()})
    StopStrings(given.get("stop", ()))
    if given.get("max_tokens", 0) < 0:
        raise UsageError(f"max_tokens is {given['max_tokens']}: it must be 0 or more")
