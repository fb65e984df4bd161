"""`edgeq convert`: a Hugging Face checkpoint, or what is quantized already, to one `.eqf` or GGUF file."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import announce, threads_option
from edgeq.cli.progress import progress_bar
from edgeq.cli.units import binary_size, count

if TYPE_CHECKING:
    from edgeq.quantize.pipeline import Report

TYPE_HELP = """Recipe: Q4_K_M is small and good, Q8_0 nearly lossless; Q5_K_S, Q5_K_M and Q6_K lie between them; Q4_K_S,
Q4_0, IQ4_NL and IQ4_XS are a little smaller, Q3_K_M, Q3_K_S and Q2_K much; Q4_1, Q5_0 and Q5_1 are GGUF's older types,
NF4 is that of bitsandbytes; MXFP4 and TQ2_0 suit models trained for them; BF16, F16 and F32 do not quantize."""
TYPE_DEFAULT = "[default: Q4_K_M; of a checkpoint that is quantized already, what keeps its codes]"
NAMED = 3  # unused tensors that are named


@click.command("convert")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write, .eqf or .gguf.  [default: NAME-TYPE.eqf]",
)
@click.option("--type", "kind", help=f"{TYPE_HELP}  {TYPE_DEFAULT}")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--allow-no-tokenizer", is_flag=True, help="Convert a checkpoint without tokenizer; it runs on ids only.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="What the model reads, as `edgeq calibrate` or llama-imatrix has written it: quantize for that.",
)
@click.option(
    "--method",
    help="How calibration is used: feedback mends in later weights and layers what earlier ones lost, and takes "
    "minutes; importance weighs the columns of each matrix.  [default: feedback]",
)
@threads_option("all processors")
def command(
    source: str,
    output: Path | None,
    kind: str | None,
    revision: str | None,
    allow_no_tokenizer: bool,
    calibration: Path | None,
    method: str | None,
    threads: int | None,
) -> None:
    """Convert SOURCE: a checkpoint's folder, a weight file in one, or a Hub repository (owner/name).

    A GGUF or an .eqf file is encoded again, as --type says: what it has lost when it was quantized stays lost.
    """
    from edgeq.conversion import convert

    with progress_bar("reading the model") as progress:
        report = convert(
            source, output, kind, threads, progress, revision, allow_no_tokenizer, announce, calibration, method
        )
    show_report(report)


def show_report(report: "Report") -> None:
    """What was taken where the checkpoint contradicts itself; what became of the tensors: those that could not have the
    recipe's type, those that were quantized already, those not used; the file, its types."""
    for note in report.notes:
        click.echo(f"note: {note}")
    for reason, tensors in _fallbacks(report).items():
        more = f" and {len(tensors) - 1} more like it" if len(tensors) > 1 else ""
        click.echo(f"note: {tensors[0]}{more}: {reason}")
    for line in report.quantized:
        click.echo(line)
    if unused := report.unused:
        names = ", ".join(unused[:NAMED]) + (", ..." if len(unused) > NAMED else "")
        is_not = "tensor of the checkpoint is" if len(unused) == 1 else "tensors of the checkpoint are"
        click.echo(f"note: {len(unused)} {is_not} not used: {names}")
    types = Counter(tensor.type for tensor in report.tensors)
    click.echo(
        f"{report.path}: {report.architecture}, {count(report.weights)} parameters, {report.recipe} "
        f"({', '.join(f'{number} {kind}' for kind, number in types.most_common())}), {binary_size(report.nbytes)}, "
        f"{report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s"
    )


def _fallbacks(report: "Report") -> dict[str, list[str]]:
    """Reason -> names of the tensors."""
    groups: dict[str, list[str]] = {}
    for tensor in report.fallbacks:
        groups.setdefault(str(tensor.fallback), []).append(tensor.name)
    return groups
