"""`edgeq import`: a GGUF file to one `.eqf` file."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import threads_option
from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from edgeq.gguf.importer import Report


@click.command("import", short_help="Import a GGUF file as one .eqf file.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.eqf]")
@click.option("--allow-no-tokenizer", is_flag=True, help="Leave out a tokenizer that cannot run here.")
@threads_option("all processors")
def command(source: Path, output: Path | None, allow_no_tokenizer: bool, threads: int | None) -> None:
    """Import SOURCE, a .gguf file, or any one of those that a model is split into.

    Blocks are re-arranged without loss: the same types, the same bits.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from edgeq.gguf.importer import import_gguf

    output = output or Path(f"{source.stem}.eqf")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), DownloadColumn(True), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the file", total=None)

        def progress(tensor: str, index: int, tensors: int, done: int, total: int) -> None:
            bar.update(task, description=f"{index + 1}/{tensors} {tensor}", completed=done, total=total)

        def announce(line: str) -> None:
            click.echo(f"edgeq: {line}", err=True)

        report = import_gguf(source, output, threads, progress, announce, allow_no_tokenizer)
    show_report(report)


def show_report(report: "Report") -> None:
    """Notes; how many tensors of each type became which, exactly or not; the file."""
    for note in report.notes:
        click.echo(f"note: {note}")
    ways = Counter((tensor.source_type, tensor.type, tensor.how) for tensor in report.tensors)
    for (source, kind, how), number in ways.items():
        click.echo(f"{number:5d} {source}{'' if kind == source else f' -> {kind}'}: {how}")
    click.echo(
        f"{report.path}: {report.architecture}, {count(report.weights)} parameters, {binary_size(report.nbytes)}, "
        f"{report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s "
        f"({report.source_bytes / report.seconds / 1e6:.0f} MB/s)"
    )
