"""`edgeq compare`: every way to quantize that there is, tried on one model, in one table and page."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.announcer import tell
from edgeq.cli.calibrate import Progress, text_of
from edgeq.cli.eval import check_output
from edgeq.cli.eval_table import table
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import announce, threads_option
from edgeq.cli.progress import status
from edgeq.cli.units import binary_size
from edgeq.errors import UsageError
from edgeq.system.output import write_file

if TYPE_CHECKING:
    from edgeq.conversion.comparing import Candidate, Comparison

INTERRUPTED = 130  # the exit code of what Ctrl-C ended
CLASSES = (2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 9)  # bits per weight, of which the best candidate is named


def _list(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """`a,b` as a list."""
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


@click.command("compare")
@click.argument("source")
@click.option(
    "--types",
    callback=_list,
    metavar="TYPE,...",
    help="Recipes, as for `edgeq convert`, and formats that are only simulated: INT8 or INT4 with _TENSOR, _ROW or "
    "_G128, what shares a scale, and perhaps _ASYM; NF4_DQ.  [default: a handful of both]",
)
@click.option(
    "--methods",
    callback=_list,
    metavar="METHOD,...",
    help="plain, smoothed, static, smoothed-static, importance, feedback.  [default: plain, feedback for recipes of "
    "k-quants, and of 8 bits what can be done to activations]",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Text to quantize for and to measure on: UTF-8, or a .jsonl with a conversation a line; may be given several "
    "times.  [default: what comes with edgeq]",
)
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="What `edgeq calibrate` has written; it holds its text."
)
@click.option("--tokens", type=click.IntRange(16), help="Of all texts together, at most.  [default: 24576]")
@click.option(
    "-c",
    "--ctx-size",
    type=click.IntRange(16),
    help="Tokens of a sequence, at most.  [default: 512, or what the model was trained for, the less]",
)
@click.option("--positions", type=click.IntRange(1), help="Of text that is kept back, to measure at.  [default: 512]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a page with a plot here.")
@threads_option("all processors")
def command(
    source: str,
    types: list[str] | None,
    methods: list[str] | None,
    texts: tuple[str, ...],
    calibration: Path | None,
    tokens: int | None,
    ctx_size: int | None,
    positions: int | None,
    revision: str | None,
    as_json: bool,
    html_path: Path | None,
    threads: int | None,
) -> None:
    """Quantize SOURCE in all ways that there are, and tell what each takes and loses; keep none of the files.

    SOURCE is a checkpoint's folder, a weight file, a Hub repository (owner/name), an .eqf or a GGUF file. Loss is
    measured on a part of the text that nothing is quantized for. Ctrl-C ends it, and shows what is known by then.
    """
    from edgeq.conversion.comparing import POSITIONS, compare
    from edgeq.conversion.passages import TOKENS

    check_output(html_path)
    if texts and calibration:
        raise UsageError("a calibration holds its text: give --text or --calibration")
    with status("") as say:

        def found(candidate: "Candidate", done: int, number: int) -> None:
            say("")
            loss = f"divergence {candidate.loss.divergence:.4f}, {binary_size(candidate.nbytes)}"
            announce(f"{done} of {number}: {candidate.name}: {loss}, {candidate.seconds:.1f} s")

        comparison = compare(
            source,
            types,
            methods,
            [text_of(one) for one in texts] or None,
            calibration,
            tokens=tokens or TOKENS,
            length=ctx_size,
            positions=positions or POSITIONS,
            threads=threads,
            revision=revision,
            found=found,
            progress=Progress(say),
            announce=say,
        )
    if html_path is not None:
        from edgeq.evaluate.comparison_page import comparison_page

        write_file(html_path, comparison_page(comparison, Path(source).name or source).encode())
    if as_json:
        front = comparison.front
        candidates = [{**asdict(one), "front": one in front} for one in comparison.candidates]
        show_json({**asdict(comparison), "candidates": candidates})
    else:
        for line in lines(comparison):
            tell(line)
    if not comparison.complete:
        raise click.exceptions.Exit(INTERRUPTED)


def lines(comparison: "Comparison") -> Iterator[str]:
    """The table, the best of each class of sizes, and what could not be made."""
    size = binary_size(comparison.nbytes)
    yield f"{comparison.source}: {size} as it is; loss at {comparison.positions} positions of text kept back"
    front = comparison.front
    rows = [
        ["", "type", "method", "file", "bits/weight", "KL divergence", "same top, %", "perplexity", "error, %", "s"]
    ]
    for one in comparison.candidates:
        rows.append(
            [
                "*" if one in front else "",
                one.type,
                "simulated" if one.simulated else one.method,
                binary_size(one.nbytes),
                f"{one.bits_per_weight:.3f}",
                f"{one.loss.divergence:.5f} ± {one.loss.error:.5f}",
                f"{100 * one.loss.same_top:.1f}",
                f"x {one.loss.perplexity:.3f}",
                "" if one.error is None else f"{100 * one.error:.2f}",
                f"{one.seconds:.1f}",
            ]
        )
    yield from table(rows, left=3)
    yield "* worth having: no file that is no larger loses less"
    best: Candidate | None = None
    for bits in CLASSES:
        fitting = [one for one in front if one.bits_per_weight <= bits]
        if fitting and fitting[-1] is not best:
            best = fitting[-1]
            yield f"at most {bits:g} bits per weight: {best.name}, divergence {best.loss.divergence:.4f}"
    if any(one.simulated for one in comparison.candidates):
        yield "simulated: edgeq has no such blocks; weights were rounded so, and bytes counted"
    for note in comparison.notes:
        yield f"note: {note}"
    if not comparison.complete:
        yield "ended early: not all was tried"
