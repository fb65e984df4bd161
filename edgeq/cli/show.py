"""`edgeq show`: what is in a model's file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.facts import (
    Facts,
    form,
    general,
    is_adapter,
    of_adapter,
    of_calibration,
    of_checkpoint,
    of_file,
    of_gguf,
)
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import made_runnable
from edgeq.cli.units import binary_size, count
from edgeq.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

LONGEST = 200  # characters of a value from the file
OUTLIERS = 5  # of a calibration's, the furthest


@click.command("show")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor.")
@json_option
def command(model: Path, tensors: bool, as_json: bool) -> None:
    """Show what MODEL, whatever can be run, holds: its architecture, types, sizes, chat template and origin; or what a
    calibration or a LoRA adapter does.

    A GGUF file and a checkpoint's folder are shown as they are: nothing is converted.
    """
    facts = describe(model)
    if not tensors:
        facts.pop("tensors")
    if as_json:
        show_json(facts)
    elif facts["format"] == "calibration":
        _print_calibration(facts)
    elif facts["format"] == "adapter":
        _print_adapter(facts)
    else:
        _print(facts)


def describe(model: Path) -> Facts:
    """Everything that `edgeq show` tells, as plain data."""
    kind = form(model)
    if kind == "gguf":
        from edgeq.container.gguf_reader import open_gguf

        with open_gguf(model) as gguf:
            other = {"imatrix": of_calibration, "adapter": of_adapter}.get(str(gguf.metadata.get("general.type")))
            return other(model) if other else of_gguf(gguf)
    if is_adapter(model):
        return of_adapter(model)
    if kind == "checkpoint":
        from edgeq.checkpoints import open_checkpoint

        with open_checkpoint(model) as checkpoint:
            return of_checkpoint(checkpoint)
    from edgeq.container.reader import open_file

    with open_file(made_runnable(model)) as file:
        return of_file(file)


def _print(facts: Facts) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120
    pairs = Table.grid(padding=(0, 2))
    for name, value in _pairs(facts):
        pairs.add_row(_line(name), "unknown" if value is None else _line(value))
    parts: list[Table | str] = [pairs, ""]
    types = _table("type", "tensors", "parameters", "size", "bits per weight")
    for kind, sums in facts["types"].items():
        numbers = (str(sums["tensors"]), count(sums["parameters"]), binary_size(sums["bytes"]))
        types.add_row(kind, *numbers, f"{sums['bits_per_weight']:.3f}")
    parts.append(types)
    if "tensors" in facts:
        rows = _table("tensor", "shape", "type", "size", "bits per weight")
        for row in facts["tensors"]:
            shape, bits = " x ".join(map(str, row["shape"])), f"{row['bits_per_weight']:.3f}"
            rows.add_row(_line(row["name"]), shape, row["type"], binary_size(row["bytes"]), bits)
        parts += ["", rows]
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())  # rich fills a table's lines with blanks


def _print_calibration(facts: Facts) -> None:
    model, gram = facts["model"], facts["gram"]
    shape = "{name} ({architecture}, {layers} layers of {hidden_size}, {vocab_size} tokens)"
    click.echo(f"file      {printable(facts['file'])}, {binary_size(facts['bytes'])}")
    click.echo(f"model     {_line(shape.format(**model)) if model else 'unknown'}")
    more = f", Gram matrix of {_line(', '.join(gram))}" if gram else ""
    click.echo(f"matrices  {facts['matrices']}{more}")
    sequences = f" in {facts['sequences']} sequences" if facts["sequences"] else ""
    click.echo(f"tokens    {facts['tokens']}{sequences}")
    for one in facts["corpora"]:
        known = f", perplexity {one['perplexity']:.4g}" if one["perplexity"] else ""
        size = f": {one['tokens']} tokens{known}" if one["tokens"] else ""
        click.echo(f"text      {_line(one['name'])}{size}")
    for one in facts["outliers"][:OUTLIERS]:
        click.echo(f"outlier   {_line(one['text'])}")
    for row in facts.get("tensors", []):
        seen = f"{min(row['counts'])} to {max(row['counts'])}" if len(row["counts"]) > 1 else row["counts"][0]
        within = "" if row["low"] is None else f", from {row['low']:.4g} to {row['high']:.4g}"
        click.echo(f"{_line(row['name'])}: {seen} rows of {row['columns']}, RMS {row['rms']:.4g}{within}")


def _print_adapter(facts: Facts) -> None:
    ranks, scales = (_range(facts[key]) for key in ("ranks", "scales"))
    click.echo(f"file      {printable(facts['file'])}, {binary_size(facts['bytes'])}")
    click.echo(f"adapter   LoRA of {_line(facts['base'] or facts['architecture'] or 'an unknown model')}")
    click.echo(f"matrices  {facts['matrices']}, {count(facts['parameters'])} parameters")
    click.echo(f"rank      {ranks}, scale {scales}")
    for row in facts.get("tensors", []):
        shape = " x ".join(map(str, row["shape"]))
        click.echo(f"{_line(row['name'])}: {shape}, rank {row['rank']}, scale {row['scale']:g}")


def _range(values: list[float]) -> str:
    """The first and the last of what is sorted."""
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _pairs(facts: Facts) -> Iterator[tuple[str, Any]]:
    """Names and values of what is told above the tables."""
    yield "file", facts["file"]
    files = facts.get("files", [])
    parts = f", {len(files)} files" if len(files) > 1 else ""
    yield "size", f"{binary_size(facts['bytes'])}{parts}"
    if facts["format"] == "gguf" and len(files) > 1:
        yield from (("", Path(file).name) for file in files)
    yield "format", {"eqf": ".eqf", "gguf": "GGUF", "checkpoint": "Hugging Face checkpoint"}[facts["format"]]
    if facts.get("requires"):
        yield "requires", ", ".join(facts["requires"])
    yield "architecture", facts["architecture"]
    yield "parameters", f"{count(facts['parameters'])} ({facts['parameters']:,})"
    yield "bits per weight", f"{facts['bits_per_weight']:.3f}"
    yield from ((name, facts[name]) for name in ("layers", "context", "vocabulary"))
    yield "chat template", _template_line(facts["chat_template"])
    yield from facts.get("provenance", {}).items()
    yield from general(facts.get("metadata", {}))
    if "assets" in facts:
        yield "assets", ", ".join(f"{name} ({binary_size(size)})" for name, size in facts["assets"].items()) or "none"
    if facts.get("problem"):
        yield "does not run", facts["problem"]


def _line(value: Any) -> str:
    """A value of the file in one line; what is long is cut."""
    text = printable(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _template_line(template: str | dict[str, str] | None) -> str:
    if template is None:
        return "none"
    if isinstance(template, dict):
        return ", ".join(f"{name} ({len(source)} characters)" for name, source in template.items())
    return f"{len(template)} characters"


def _table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
