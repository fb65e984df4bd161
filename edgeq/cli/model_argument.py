"""The model and the prompt, of verbs by which a model writes: in their places, or by -m and -p, as the commands of
llama.cpp have them; --model and --prompt are mlx-lm's, too."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from edgeq.cli.options import check_utf8
from edgeq.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

_MODEL = click.option("-m", "--model", "by_name", metavar="MODEL", help="MODEL, in place of the argument.")
_PROMPT = click.option("-p", "--prompt", "said", metavar="PROMPT", help="PROMPT, in place of the argument.")


def model_argument(function: Function) -> Function:
    """Adds MODEL; the function gets it as `model`, a Path."""

    @functools.wraps(function)
    def wrapper(words: Sequence[str], by_name: str | None, **values: Any) -> Any:
        return function(model=Path(_taken([by_name], words, 1)[0]), **values)

    return cast(Function, _declared(wrapper, _MODEL, metavar="MODEL"))


def model_and_prompt(function: Function) -> Function:
    """Adds MODEL and PROMPT; the function gets them as `model`, a Path, and `prompt`, a text or None."""

    @functools.wraps(function)
    def wrapper(words: Sequence[str], by_name: str | None, said: str | None, **values: Any) -> Any:
        model, *prompt = _taken([by_name, said], words, 2)
        for text in prompt:
            check_utf8(text, "the prompt")
        return function(model=Path(model), prompt=prompt[0] if prompt else None, **values)

    return cast(Function, _declared(wrapper, _MODEL, _PROMPT, metavar="MODEL [PROMPT]"))


def _declared(wrapper: Any, *options: Any, metavar: str) -> Any:
    for option in reversed(options):
        wrapper = option(wrapper)
    return click.argument("words", nargs=-1, metavar=metavar)(wrapper)


def _taken(named: Sequence[str | None], words: Sequence[str], most: int) -> list[str]:
    """The model and what follows it. UsageError for none, or for more than there are places."""
    left = list(words)
    if named[0] is None and not left:
        raise click.UsageError("Missing argument 'MODEL'.", click.get_current_context())
    found = [one if one is not None else left.pop(0) for one in named if one is not None or left]
    if left:
        given = " ".join(left)
        places = "a model" if most == 1 else "a model and a prompt, text of several words in quotes"
        raise UsageError(f"{given[:80]!r} is one argument too many: give {places}")
    return found
