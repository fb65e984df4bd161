"""`edgeq export`: a model as a GGUF file."""

from collections import Counter
from pathlib import Path

import click

from edgeq.cli.announcer import tell
from edgeq.cli.facts import model_name
from edgeq.cli.options import announce, made_runnable
from edgeq.cli.progress import progress_bar
from edgeq.cli.units import binary_size
from edgeq.container.gguf_values import is_gguf
from edgeq.errors import UsageError


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.gguf]")
@click.option("--fallback", is_flag=True, help="Encode again, as Q8_0 or F16, matrices that GGUF cannot hold so.")
@click.option("--allow-no-tokenizer", is_flag=True, help="Leave out a tokenizer that GGUF cannot hold.")
def command(model: Path, output: Path | None, fallback: bool, allow_no_tokenizer: bool) -> None:
    """Export MODEL, whatever can be run, as a .gguf file with the same blocks, bit for bit."""
    from edgeq.gguf.export_plan import AS_Q8_0
    from edgeq.gguf.exporter import export_gguf

    if is_gguf(model):
        raise UsageError(f"{model}: is a GGUF file already; `edgeq convert --type TYPE -o FILE.gguf` encodes it again")
    output = output or Path(f"{model_name(model)}.gguf")
    source = made_runnable(model)
    fallback_types = AS_Q8_0 if fallback else None
    with progress_bar("reading the file") as progress:
        report = export_gguf(source, output, fallback_types, allow_no_tokenizer, progress=progress, announce=announce)
    for note in report.notes:
        tell(f"note: {note}")
    if again := [tensor for tensor in report.tensors if tensor.again]:
        more = f" and {len(again) - 1} more like it" if len(again) > 1 else ""
        tell(f"note: {again[0].name}{more}: encoded again as {again[0].type}, GGUF cannot hold it so")
    types = Counter(tensor.type for tensor in report.tensors)
    tell(
        f"{report.path}: {report.architecture}, "
        f"{', '.join(f'{number} {kind}' for kind, number in types.most_common())}, {binary_size(report.nbytes)}"
    )
