"""`edgeq show`: what is in a file."""

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from rich.table import Table

    from edgeq.container.reader import File


@click.command("show", short_help="Show what a file holds.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(model: Path, tensors: bool, output: str) -> None:
    """Show what MODEL, whatever can be run, holds: its architecture, types, sizes, chat template and origin."""
    from edgeq.container.reader import open_file
    from edgeq.model_cache import runnable

    with open_file(runnable(model, lambda line: click.echo(f"edgeq: {line}", err=True))) as file:
        facts = describe(file)
    if not tensors:
        facts.pop("tensors")
    if output == "json":
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print(facts)


def describe(file: "File") -> dict[str, Any]:
    """Everything that `edgeq show` tells, as plain data. Sizes are bytes."""
    rows: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "type": tensor.type,
            "bytes": tensor.nbytes,
            "bits_per_weight": 8 * tensor.nbytes / prod(tensor.shape),
        }
        for tensor in file.tensors.values()
    ]
    config = file.metadata.get("config", {})
    parameters = sum(prod(row["shape"]) for row in rows)
    return {
        "file": file.path,
        "bytes": file.nbytes,
        "architecture": file.metadata.get("architecture"),
        "parameters": parameters,
        "bits_per_weight": 8 * sum(row["bytes"] for row in rows) / parameters if parameters else 0.0,
        "context": config.get("max_position_embeddings"),
        "vocabulary": config.get("vocab_size"),
        "layers": config.get("num_hidden_layers"),
        "chat_template": _template(file),
        "provenance": file.metadata.get("provenance", {}),
        "assets": {asset.name: asset.nbytes for asset in file.assets.values()},
        "types": _types(rows),
        "tensors": rows,
    }


def _types(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Sums by block type, the largest first."""
    types: dict[str, dict[str, float]] = {}
    for row in rows:
        sums = types.setdefault(row["type"], {"tensors": 0, "parameters": 0, "bytes": 0})
        sums["tensors"] += 1
        sums["parameters"] += prod(row["shape"])
        sums["bytes"] += row["bytes"]
    for sums in types.values():
        sums["bits_per_weight"] = 8 * sums["bytes"] / sums["parameters"]
    return dict(sorted(types.items(), key=lambda item: -item[1]["bytes"]))


def _template(file: "File") -> str | dict[str, str] | None:
    from edgeq.text.assets import read_settings

    return read_settings({name: file.asset(name) for name in file.assets if "tokenizer." not in name}).chat_template


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120
    pairs = Table.grid(padding=(0, 2))
    for name, value in (
        ("file", facts["file"]),
        ("size", binary_size(facts["bytes"])),
        ("architecture", facts["architecture"]),
        ("parameters", f"{count(facts['parameters'])} ({facts['parameters']:,})"),
        ("bits per weight", f"{facts['bits_per_weight']:.3f}"),
        ("layers", facts["layers"]),
        ("context", facts["context"]),
        ("vocabulary", facts["vocabulary"]),
        ("chat template", _template_line(facts["chat_template"])),
        *facts["provenance"].items(),
        ("assets", ", ".join(f"{name} ({binary_size(size)})" for name, size in facts["assets"].items()) or "none"),
    ):
        pairs.add_row(name, "unknown" if value is None else str(value))
    parts: list[Table | str] = [pairs, ""]
    types = _table("type", "tensors", "parameters", "size", "bits per weight")
    for kind, sums in facts["types"].items():
        numbers = (str(sums["tensors"]), count(sums["parameters"]), binary_size(sums["bytes"]))
        types.add_row(kind, *numbers, f"{sums['bits_per_weight']:.3f}")
    parts.append(types)
    if "tensors" in facts:
        rows = _table("tensor", "shape", "type", "size", "bits per weight")
        for row in facts["tensors"]:
            shape = " x ".join(map(str, row["shape"]))
            rows.add_row(row["name"], shape, row["type"], binary_size(row["bytes"]), f"{row['bits_per_weight']:.3f}")
        parts += ["", rows]
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())  # rich fills a table's lines with blanks


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
