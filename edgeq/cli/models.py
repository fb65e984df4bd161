"""`edgeq models` and `edgeq pull`: what is in the cache, and what is worth a try."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from edgeq.store.model_cache import Cached


@click.group("models", invoke_without_command=True)
@click.option("--recommended", is_flag=True, help="List models that are worth a try, and whether they fit here.")
@click.option("--prune", "pruning", is_flag=True, help="As `edgeq models prune`.")
@json_option
@click.pass_context
def command(context: click.Context, recommended: bool, pruning: bool, as_json: bool) -> None:
    """The models that were made to be run: each is found again by its name, or by the beginning of it."""
    if context.invoked_subcommand is not None:
        return
    if recommended:
        _recommend(as_json)
    elif pruning:
        _prune()
    else:
        _list(as_json)


@command.command("rm", short_help="Remove models from the cache.")
@click.argument("names", nargs=-1, required=True)
def remove_command(names: tuple[str, ...]) -> None:
    """Remove the models NAMES from the cache. What they were made of stays."""
    from edgeq.store import model_cache

    found = list(dict.fromkeys(model_cache.named(name) for name in names))  # all are there before one is removed
    for one in found:
        model_cache.remove(one)
        tell(f"{one.name}: removed, {binary_size(one.nbytes)}")


@command.command("prune", short_help="Remove what nobody finds again.")
def prune_command() -> None:
    """Remove the models of earlier versions, and those whose source has changed: asked for, they are made anew."""
    _prune()


def _prune() -> None:
    from edgeq.store import model_cache

    stale = [one for one in model_cache.cached() if one.stale]
    for one in stale:
        model_cache.remove(one)
        tell(f"{one.name}: removed, {binary_size(one.nbytes)}: {one.remark}")
    if not stale:
        click.echo("nothing to remove: what would be made now is what is there")


def _list(as_json: bool) -> None:
    from edgeq.store import model_cache

    found = model_cache.cached()
    if as_json:
        show_json([{**asdict(one), "path": str(one.path)} for one in found])
        return
    if not found:
        tell(f"no models in {model_cache.folder()}: `edgeq models --recommended` lists some worth a try")
        return
    rows = [
        (one.name, binary_size(one.nbytes), one.recipe, _ago(time.time() - one.used), one.source + _remark(one))
        for one in found
    ]
    _print([("NAME", "SIZE", "TYPE", "USED", "SOURCE"), *rows], right={1})


def _remark(one: "Cached") -> str:
    return f" ({one.remark}{': edgeq models prune' if one.stale else ''})" if one.remark else ""


def _ago(seconds: float) -> str:
    """ "3 days ago"."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (number := int(seconds // length)) > 0:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "now"


def _recommend(as_json: bool) -> None:
    from edgeq.runtime.fit import available_memory
    from edgeq.store.recommended import TABLE

    available = available_memory()
    if as_json:
        facts: list[dict[str, Any]] = [
            {**asdict(row), "memory": row.memory, "download": row.download, "fits": row.memory <= available}
            for row in TABLE
        ]
        show_json(facts)
        return
    rows = [
        (
            row.name,
            count(row.parameters * 10**6),
            binary_size(row.download),
            binary_size(row.memory),
            "yes" if row.memory <= available else "no",
            row.repository + (" (accept its licence there first)" if row.gated else ""),
        )
        for row in TABLE
    ]
    _print([("NAME", "PARAMETERS", "DOWNLOAD", "MEMORY", "FITS", "REPOSITORY"), *rows], right={1, 2, 3})
    click.echo(f"\n{binary_size(available)} are available here. Memory is that of Q4_K_M and a context of 4096.")
    click.echo("edgeq chat NAME fetches one and talks with it; NAME:Q8_0 is larger and nearly without loss.")


def _print(rows: list[tuple[str, ...]], right: set[int]) -> None:
    """A table, its columns as wide as they must be."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        tell("  ".join(cells).rstrip())
