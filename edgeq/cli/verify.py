"""`edgeq verify`: check every byte of a file against its checksums."""

from pathlib import Path

import click

from edgeq import environment
from edgeq.cli.options import threads_option

THREADS = 2  # more do not help where the disk is the limit


@click.command("verify", short_help="Check a file's checksums.")
@click.argument("model", type=click.Path(path_type=Path))
@threads_option(str(THREADS))
def command(model: Path, threads: int | None) -> None:
    """Check every tensor and asset of MODEL, an .eqf file, against its checksum."""
    from edgeq.cli.progress import bytes_bar
    from edgeq.cli.units import binary_size
    from edgeq.container.reader import open_file

    with open_file(model) as file:
        with bytes_bar("checking") as progress:
            file.verify(progress, threads or environment.threads() or THREADS)
        click.echo(
            f"{model}: sound: {len(file.tensors)} tensors, {len(file.assets)} assets, {binary_size(file.nbytes)}"
        )
