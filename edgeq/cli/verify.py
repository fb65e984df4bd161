"""`edgeq verify`: check every byte of a file against its checksums, or what can be checked where it has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.facts import form
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import made_runnable, threads_option
from edgeq.cli.progress import bytes_bar
from edgeq.cli.units import binary_size
from edgeq.errors import EdgeqError
from edgeq.system import environment

Progress = Callable[[int, int], None]
Facts = dict[str, Any]

THREADS = 2  # more do not help where the disk is the limit


@click.command("verify")
@click.argument("model", type=click.Path(path_type=Path))
@json_option
@threads_option(str(THREADS))
def command(model: Path, as_json: bool, threads: int | None) -> None:
    """Check every tensor and asset of MODEL, whatever can be run.

    An .eqf file has a checksum of each. GGUF files and checkpoints have none: there it is checked that the file is
    whole, that its tensors are those of its configuration, that its tokenizer can be read, and that every scale or
    weight is finite.
    """
    threads = threads or environment.threads() or THREADS
    kind = form(model)
    check = {"eqf": _file, "gguf": _gguf, "checkpoint": _checkpoint}[kind]
    try:
        if kind == "eqf":
            model = made_runnable(model)
        with bytes_bar("checking") as progress:
            facts = check(model, progress, threads)
    except EdgeqError as error:
        if as_json:
            show_json({"file": str(model), "sound": False, "problem": str(error)})
        raise
    if as_json:
        show_json({"file": str(model), "sound": True, **facts})
        return
    for note in facts["notes"]:
        tell(f"note: {note}")
    limit = "" if facts["checksums"] else "; it has no checksums, so a changed weight cannot be told"
    counts = f"{facts['tensors']} tensors" + (f", {facts['assets']} assets" if facts["checksums"] else "")
    tell(f"{facts['file']}: sound: {counts}, {binary_size(facts['bytes'])}{limit}")


def _file(model: Path, progress: Progress, threads: int) -> Facts:
    from edgeq.container.reader import open_file

    with open_file(model) as file:
        file.verify(progress, threads)
        return _facts(file.path, file.nbytes, len(file.tensors), len(file.assets), checksums=True)


def _gguf(model: Path, progress: Progress, threads: int) -> Facts:
    from edgeq.container.gguf_reader import open_gguf
    from edgeq.gguf.verify import verify
    from edgeq.quantize.imatrix import read_calibration

    with open_gguf(model) as file:
        if file.metadata.get("general.type") == "imatrix":
            read_calibration(model)
            return _facts(str(model), file.nbytes, len(file.tensors))
        notes = verify(file, progress, threads)
        return _facts(str(model), file.nbytes, len(file.tensors), notes=notes)


def _checkpoint(model: Path, progress: Progress, threads: int) -> Facts:
    from edgeq.checkpoints import open_checkpoint
    from edgeq.conversion.conversion import verify

    with open_checkpoint(model) as checkpoint:
        notes = verify(checkpoint, progress)
        nbytes = sum(checkpoint.nbytes(name) for name in checkpoint.tensors)
        return _facts(str(model), nbytes, len(checkpoint.tensors), len(checkpoint.assets), notes)


def _facts(
    file: str, nbytes: int, tensors: int, assets: int = 0, notes: list[str] | None = None, checksums: bool = False
) -> Facts:
    counts = {"bytes": nbytes, "tensors": tensors, "assets": assets}
    return {"file": file, **counts, "checksums": checksums, "notes": notes or []}
