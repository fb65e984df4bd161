"""`edgeq drift`: whether texts are still what a model was calibrated with."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.announcer import tell
from edgeq.cli.calibrate import text_of
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import announce, check_text, made_runnable, threads_option
from edgeq.cli.progress import status

if TYPE_CHECKING:
    from edgeq.drift.tally import Report

TOKENS = 8192  # of a text
SHOWN = 8  # alerts of a text
ALARMED = 1  # the exit code


@click.command("drift")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--text",
    "texts",
    multiple=True,
    required=True,
    callback=check_text,
    metavar="[NAME=]FILE",
    help="What comes in now: UTF-8, or a .jsonl with a conversation a line; may be given several times, each is a "
    "slice.",
)
@click.option("--tokens", type=click.IntRange(1024), default=TOKENS, show_default=True, help="Of each text, at most.")
@json_option
@threads_option("the fast cores, one thread each")
def command(model: Path, texts: tuple[str, ...], tokens: int, as_json: bool, threads: int | None) -> None:
    """Compare texts with what MODEL, an .eqf file that was converted with a calibration, was calibrated with.

    Alerts are a line each: tokens, rows or values that are others (population stability index above 0.25), a
    perplexity of 2.5 times that at calibration, values out of range. Exit code 1 where there is one; warnings are none.
    """
    from edgeq.container.reader import open_file
    from edgeq.conversion.calibrating import sequences_of
    from edgeq.drift.look import LEAST, LENGTH, Looker
    from edgeq.drift.seen import seen_by
    from edgeq.drift.tally import Tally

    given, reports = [text_of(one) for one in texts], []
    with open_file(made_runnable(model)) as file, status("") as say:
        seen = seen_by(file)
        slices = [(one.name, sequences_of(file, str(model), [one], tokens=tokens, length=LENGTH)) for one in given]
        with Looker(file, list(seen.inputs), threads, announce) as looker:
            for name, passages in slices:
                tally = Tally(seen, name)
                for number, passage in enumerate(passages, 1):
                    say(f"{name:.30}: {number} of {len(passages)}")
                    tally.count(passage.tokens)
                    if len(passage.tokens) >= LEAST:
                        tally.look(looker, passage.tokens)
                reports.append(tally.report())
    if as_json:
        show_json({"model": str(model), "alarmed": any(one.alarmed for one in reports), "slices": _plain(reports)})
    else:
        for report in reports:
            for line in lines(report):
                tell(line)
    if any(one.alarmed for one in reports):
        raise click.exceptions.Exit(ALARMED)


def _plain(reports: "list[Report]") -> list[dict[str, object]]:
    return [one.plain() for one in reports]


def lines(report: "Report") -> Iterator[str]:
    """What there is to say of a text, then its alerts and warnings, the worst first."""
    worst = max(report.indices, key=lambda name: report.indices[name], default="")
    known = f", PSI at most {report.indices[worst]:.2f} ({worst})" if worst else ""
    yield (
        f"{report.slice}: {report.looked_at} parts, {report.tokens} tokens: perplexity {report.perplexity:.4g}, at "
        f"calibration {report.calibrated:.4g} on {report.nearest}; PSI of tokens {report.token_index:.2f}{known}"
    )
    if not report.enough:
        yield f"{report.slice}: too little text to judge by: give more"
    yield from map(str, report.alerts[:SHOWN])
    if len(report.alerts) > SHOWN:
        yield f"and {len(report.alerts) - SHOWN} more like these: --json lists them"
