"""`edgeq import`: a GGUF file to one `.eqf` file."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.announcer import tell
from edgeq.cli.options import announce, threads_option
from edgeq.cli.progress import progress_bar
from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from edgeq.gguf.importer import Report


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.eqf]")
@click.option("--allow-no-tokenizer", is_flag=True, help="Leave out a tokenizer that cannot run here.")
@click.option("--mmproj", type=click.Path(path_type=Path), help="A GGUF file of what the model sees images with.")
@threads_option("all processors")
def command(
    source: Path, output: Path | None, allow_no_tokenizer: bool, mmproj: Path | None, threads: int | None
) -> None:
    """Import SOURCE, a .gguf file, or any one of those that a model is split into.

    Blocks are re-arranged without loss: the same types, the same bits. Scales of NVFP4 may be rounded, as is said then.
    """
    from edgeq.gguf.importer import import_gguf

    output = output or Path(f"{source.stem}.eqf")
    with progress_bar("reading the file") as progress:
        report = import_gguf(source, output, threads, progress, announce, allow_no_tokenizer, mmproj)
    show_report(report)


def show_report(report: "Report") -> None:
    """Notes; how many tensors of each type became which, exactly or not; the file."""
    for note in report.notes:
        tell(f"note: {note}")
    ways = Counter((tensor.source_type, tensor.type, tensor.how) for tensor in report.tensors)
    for (source, kind, how), number in ways.items():
        tell(f"{number:5d} {source}{'' if kind == source else f' -> {kind}'}: {how}")
    tell(
        f"{report.path}: {report.architecture}, {count(report.weights)} parameters, {binary_size(report.nbytes)}, "
        f"{report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s "
        f"({report.source_bytes / report.seconds / 1e6:.0f} MB/s)"
    )
