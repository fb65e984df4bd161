"""`--json`, of the verbs that tell something: one JSON document on stdout instead of text.

`-o` names a file to write, in every verb that has it; `-o json`, which some of these had for JSON, is still understood.
"""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from edgeq.errors import UsageError

Function = TypeVar("Function")


def json_option_for(help: str) -> Callable[[Function], Function]:
    """Adds `--json`; the function gets it as `as_json`."""

    def add(function: Function) -> Function:
        @functools.wraps(cast(Any, function))
        def wrapper(**values: Any) -> Any:
            former = values.pop("former")
            return cast(Any, function)(**values | {"as_json": values["as_json"] or former == "json"})

        former = click.option("-o", "--output", "former", hidden=True, callback=_check_former)
        return cast(Function, click.option("--json", "as_json", is_flag=True, help=help)(former(wrapper)))

    return add


json_option = json_option_for("Print JSON.")


def show_json(facts: Any) -> None:
    """Print plain data, no character of which steers a terminal: JSON can spell it."""
    text = json.dumps(facts, ensure_ascii=False, indent=2)
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def _check_former(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value not in (None, "json"):
        raise UsageError(f"-o {value}: {context.info_name} writes no file: --json prints JSON, and > FILE keeps it")
    return value
