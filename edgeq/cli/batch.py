"""`edgeq batch`: answer a file of requests, offline."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeq.cli.announcer import announce, can_move_lines
from edgeq.cli.options import model_options
from edgeq.cli.served import check_installed, load_served, named
from edgeq.errors import UsageError

SILENCE_S = 10.0


@click.command("batch")
@click.argument("model", metavar="[NAME=]MODEL")
@click.argument("requests", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file of answers to write.")
@click.option("--at-once", type=click.IntRange(1, 256), default=32, show_default=True, help="Rows computed together.")
@click.option("--embeddings", is_flag=True, default=None, help="Load the model only to embed texts.")
@model_options
def command(
    model: str, requests: Path, output: Path, at_once: int, embeddings: bool | None, loading: dict[str, Any]
) -> None:
    """Answer REQUESTS, a file of OpenAI's batch format (JSON lines of custom_id, method, url and body), with MODEL: an
    .eqf or .gguf file, a checkpoint's folder or a Hub repository. Rows name it as its file is called, or by NAME.

    Answers are those of `edgeq serve`, in the order of the rows, and the same at each run. A run that was ended early
    is gone on with by the same command.
    """
    check_installed()
    from edgeq.serve.app import application
    from edgeq.serve.batch_files import answer_file
    from edgeq.serve.guard import Rules
    from edgeq.serve.offline import EVERY, identity
    from edgeq.serve.roster import Roster

    if model.endswith(".jsonl"):
        raise UsageError(f"{model}: is no model: write edgeq batch MODEL REQUESTS -o ANSWERS")
    ((name, path),) = named((model,)).items()
    roster = Roster({name: partial(load_served, path, {**loading, "embeddings": bool(embeddings)})}, EVERY, at_once)
    roster.load()
    if roster.failure is not None:
        raise roster.failure
    try:
        engine = roster.entries[name].engine
        assert engine is not None
        whose = identity(engine.model, name, loading)
        show = _Progress()
        work = answer_file(application(roster, Rules()), requests, output, whose, at_once, show)
        outcome = asyncio.run(work)
    finally:
        roster.close()
    kept = f", {outcome.kept} of them earlier" if outcome.kept else ""
    refused = f", {outcome.refused} refused" if outcome.refused else ""
    click.echo(f"{output}: {outcome.answered} answered{kept}{refused}")


class _Progress:
    """Says how many rows are answered: in one line at a terminal, else now and then."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if can_move_lines():
            click.echo(f"\redgeq: {done} of {total} answered\x1b[K", err=True, nl=done >= total)
        elif time.monotonic() - self._said > SILENCE_S:
            self._said = time.monotonic()
            announce(f"{done} of {total} answered")
