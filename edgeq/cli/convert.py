"""`edgeq convert`: a Hugging Face checkpoint to one `.eqf` file."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import THREADS
from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from edgeq.quantize.pipeline import Report


@click.command("convert", short_help="Convert a checkpoint to one .eqf file.")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: NAME-TYPE.eqf]")
@click.option("--type", "kind", default="Q4_K_M", show_default=True, help="Recipe: Q8_0, Q4_K_M, F16, ...")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--allow-no-tokenizer", is_flag=True, help="Convert a checkpoint without tokenizer; it runs on ids only.")
@THREADS
def command(
    source: str, output: Path | None, kind: str, revision: str | None, allow_no_tokenizer: bool, threads: int | None
) -> None:
    """Convert SOURCE: a checkpoint's folder, a weight file in one, or a Hub repository (owner/name)."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from edgeq.quantize.pipeline import convert

    name = Path(source).expanduser().resolve() if Path(source).expanduser().exists() else Path(source)
    output = output or Path(f"{name.stem if name.is_file() else name.name}-{kind.upper()}.eqf")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), DownloadColumn(True), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the checkpoint", total=None)

        def progress(tensor: str, index: int, tensors: int, done: int, total: int) -> None:
            bar.update(task, description=f"{index + 1}/{tensors} {tensor}", completed=done, total=total)

        def announce(line: str) -> None:
            click.echo(f"edgeq: {line}", err=True)

        report = convert(source, output, kind, threads, progress, revision, allow_no_tokenizer, announce)
    show_report(report)


def show_report(report: "Report") -> None:
    """What became of the tensors: the file, its types, and each tensor that could not have the recipe's type."""
    for (reason, kind), tensors in _fallbacks(report).items():
        more = f" and {len(tensors) - 1} more like it" if len(tensors) > 1 else ""
        click.echo(f"note: {tensors[0]}{more}: {reason} ({kind})")
    types = Counter(tensor.type for tensor in report.tensors)
    click.echo(
        f"{report.path}: {report.architecture}, {count(report.weights)} parameters, {report.recipe} "
        f"({', '.join(f'{number} {kind}' for kind, number in types.most_common())}), {binary_size(report.nbytes)}, "
        f"{report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s"
    )


def _fallbacks(report: "Report") -> dict[tuple[str, str], list[str]]:
    """(reason, type) -> names of the tensors."""
    groups: dict[tuple[str, str], list[str]] = {}
    for tensor in report.fallbacks:
        groups.setdefault((str(tensor.fallback), tensor.type), []).append(tensor.name)
    return groups
