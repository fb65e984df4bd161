"""`edgeq convert`: a Hugging Face checkpoint, or what is quantized already, to one `.eqf` or GGUF file."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.boards import memory
from edgeq.cli.calibrate import Progress
from edgeq.cli.options import announce, lora_option, threads_option
from edgeq.cli.progress import progress_bar, status, work_bar
from edgeq.cli.units import binary_size, count, size
from edgeq.errors import UsageError
from edgeq.system.output import folder_of

if TYPE_CHECKING:
    from edgeq.quantize.calibration import Calibration
    from edgeq.quantize.converted import Report

TYPE_HELP = """Recipe: Q4_K_M is small and good, Q8_0 nearly lossless; Q5_K_S, Q5_K_M and Q6_K lie between them; Q4_K_S,
Q4_0, IQ4_NL and IQ4_XS are a little smaller, Q3_K_M, Q3_K_S and Q2_K much; Q4_1, Q5_0 and Q5_1 are GGUF's older types,
NF4 is that of bitsandbytes; I8_R has one scale per row; MXFP4, TQ2_0, Q2_0 and Q1_0 suit models trained for them; BF16,
F16 and F32 do not quantize."""
TYPE_DEFAULT = "[default: Q4_K_M; of a checkpoint that is quantized already, what keeps its codes]"
NAMED = 3  # unused tensors that are named


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    return None if value is None else size(value)


def _memory(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    return None if value is None else memory(value)


def _rules(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(expression, type) of `ffn_down=Q6_K`."""
    rules = [rule.rpartition("=") for rule in value]
    for (pattern, _, kind), rule in zip(rules, value, strict=True):
        if not pattern or not kind:
            raise UsageError(f"{rule!r} is no rule: give one as ffn_down=Q6_K")
    return tuple((pattern, kind) for pattern, _, kind in rules)


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
    help="What the model reads, as `edgeq calibrate` or llama-imatrix has written it: quantize for that.  "
    "[default: for small models it is found out first, with texts that come with edgeq]",
)
@click.option("--no-calibration", is_flag=True, help="Round each weight by itself: done in seconds, and loses more.")
@click.option(
    "--method",
    help="How calibration is used: feedback mends in later weights and layers what earlier ones lost, and takes "
    "minutes; importance weighs the columns of each matrix.  [default: feedback]",
)
@click.option(
    "--smooth",
    type=float,
    metavar="EXPONENT",
    help="Fold SmoothQuant's scales with this exponent, 0 to 1, into what comes before: a larger one leaves "
    "activations fewer outliers.  [default: 0.65 for I8_R; other types get scales by what columns matter]",
)
@click.option("--target-size", "nbytes", callback=_size, help="Choose types so that the file is no larger, as 700MB.")
@click.option("--target-bpw", "bits", type=float, help="Choose types of so many bits per weight at most, as 4.25.")
@click.option(
    "--max-kld", "divergence", type=float, help="Choose types, as small as such a divergence allows, as 0.01."
)
@click.option(
    "--fits",
    "memory",
    callback=_memory,
    metavar="MACHINE",
    help="Choose the best types that a machine has the memory to run: its RAM, as 4GB, or a board, as pi4-2gb.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Take the types from a file, as --save-plan writes it.")
@click.option("--save-plan", type=click.Path(path_type=Path), help="Write the types to a TOML file.")
@click.option(
    "--tensor-type",
    "rules",
    multiple=True,
    metavar="REGEX=TYPE",
    callback=_rules,
    help="The type of matrices whose name has this in it, as ffn_down=Q6_K.  [may be given several times]",
)
@click.option("--no-vision", is_flag=True, help="Leave out what reads images: the file reads text alone.")
@lora_option("merged into the weights before they are encoded")
@threads_option("all processors")
def command(
    source: str,
    output: Path | None,
    kind: str | None,
    revision: str | None,
    allow_no_tokenizer: bool,
    calibration: Path | None,
    no_calibration: bool,
    no_vision: bool,
    lora: tuple[str, ...],
    threads: int | None,
    **wishes: Any,
) -> None:
    """Convert SOURCE: a checkpoint's folder, a weight file in one, or a Hub repository (owner/name).

    A GGUF or an .eqf file is encoded again, as --type says: what it has lost when it was quantized stays lost.
    """
    from edgeq.adapters.given import wanted
    from edgeq.conversion.conversion import convert, with_adapters

    merged = with_adapters(source, wanted(lora), output)
    wished = any(value is not None and value != () for value in wishes.values())
    if no_calibration and (wished or calibration):
        raise UsageError("--no-calibration contradicts options that need one: leave it, or them, out")
    from edgeq.quantize.calibrated import Request, check_wishes

    check_wishes(
        **{name: wishes[name] for name in ("method", "nbytes", "bits", "divergence", "memory", "plan", "smooth")}
    )
    with _calibrated(merged, output, kind, revision, calibration, not no_calibration, wished, threads) as known:
        request = None if known is None else Request(known, **wishes)
        with progress_bar("reading the model") as progress:
            report = convert(
                merged,
                output,
                kind,
                threads,
                progress,
                revision,
                allow_no_tokenizer,
                announce,
                request,
                True,
                vision=not no_vision,
            )
    show_report(report)


@contextmanager
def _calibrated(
    source: str | os.PathLike[str],
    output: Path | None,
    kind: str | None,
    revision: str | None,
    given: Path | None,
    may: bool,
    must: bool,
    threads: int | None,
) -> "Iterator[Calibration | None]":
    """What the model reads: as it is given; found out where that is asked for, or worth it; otherwise None.

    What was found out is kept until all is done: the same command, given again, need not do it again.
    """
    from edgeq.quantize.imatrix import read_calibration

    if given is not None:
        yield read_calibration(given)
        return
    from edgeq.conversion.calibrating import calibrate, worth_calibrating

    if not must and not (may and worth_calibrating(source, kind, revision)):
        yield None
        return
    told: list[str] = []

    def progress(text: str, done: int, total: int) -> None:
        if not told:  # not before all is checked
            told.append("calibrating with the texts that come with edgeq: --no-calibration skips that, and loses more")
            announce(told[0])
        shown(text, done, total)

    key = hashlib.sha256(f"{Path(source).absolute()} {source} {revision}".encode()).hexdigest()[:12]
    kept = folder_of(output or "unnamed") / f".{output.name if output else 'edgeq'}.{key}.calib"
    if not kept.exists():
        with status("") as say, work_bar() as show:
            shown = Progress(say)
            calibrate(
                source,
                kept,
                threads=threads,
                revision=revision,
                progress=progress,
                conversion=lambda tensor, i, tensors, done, of: show(f"{i + 1}/{tensors} {tensor}", done, of),
                announce=announce,
            )
    yield read_calibration(kept)
    kept.unlink(missing_ok=True)


def show_report(report: "Report") -> None:
    """What was taken where the checkpoint contradicts itself; what became of the tensors: those that could not have the
    recipe's type, those that were quantized already, those not used; the file, its types."""
    for note in report.notes:
        tell(f"note: {note}")
    for reason, tensors in _fallbacks(report).items():
        more = f" and {len(tensors) - 1} more like it" if len(tensors) > 1 else ""
        tell(f"note: {tensors[0]}{more}: {reason}")
    for line in report.quantized:
        tell(line)
    if unused := report.unused:
        names = ", ".join(unused[:NAMED]) + (", ..." if len(unused) > NAMED else "")
        is_not = "tensor of the checkpoint is" if len(unused) == 1 else "tensors of the checkpoint are"
        tell(f"note: {len(unused)} {is_not} not used: {names}")
    _show_loss(report)
    types = Counter(tensor.type for tensor in report.tensors)
    tell(
        f"{report.path}: {report.architecture}, {count(report.weights)} parameters, {report.recipe} "
        f"({', '.join(f'{number} {kind}' for kind, number in types.most_common())}), {binary_size(report.nbytes)}, "
        f"{report.bits_per_weight:.3f} bits per weight, {report.seconds:.1f} s"
    )


def _show_loss(report: "Report") -> None:
    """What quantizing has cost; loud where that is much."""
    loss = report.loss
    if loss is None:
        return
    predicted = "" if isnan(report.predicted) else f", predicted {report.predicted:.4f}"
    tell(
        f"loss on text that it was not quantized for: divergence {loss.divergence:.4f} +- {loss.error:.4f}{predicted}, "
        f"the same likeliest token at {loss.same_top:.1%}, perplexity x {loss.perplexity:.3f}"
    )
    if loss.large:
        click.secho(f"WARNING: {report.recipe} {_advice(report)}", fg="red", bold=True, err=True)


def _advice(report: "Report") -> str:
    """What to do about a large loss."""
    from edgeq.conversion.plain_loss import LADDER

    if report.holds:
        return f"without a calibration costs this model a lot: calibrate it, or take {report.holds}"
    larger = LADDER[LADDER.index(report.recipe) + 1 :] if report.recipe in LADDER else ()
    return f"costs this model a lot: take {larger[0] if larger else 'a larger type'}"


def _fallbacks(report: "Report") -> dict[str, list[str]]:
    """Reason -> names of the tensors."""
    groups: dict[str, list[str]] = {}
    for tensor in report.fallbacks:
        groups.setdefault(str(tensor.fallback), []).append(tensor.name)
    return groups
