"""`edgeq rerank`: texts in the order in which they answer a query."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.embed import lines_of
from edgeq.cli.json_output import json_option_for, show_json
from edgeq.cli.options import check_text, load_model, model_options
from edgeq.cli.progress import status
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.engine.model import Model


@click.command("rerank")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("query", callback=check_text)
@click.argument("texts", nargs=-1, callback=check_text)
@click.option(
    "--file", "lines", type=click.Path(path_type=Path), help="Take the texts from a file's lines; - is stdin."
)
@click.option("-n", "--top", type=click.IntRange(1), help="Print only so many, the best.")
@click.option("--instruction", callback=check_text, help="What makes a text an answer; for models that write yes.")
@json_option_for("Print a list of objects of index, score and text.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr.")
@model_options
def command(
    model: Path,
    query: str,
    texts: tuple[str, ...],
    lines: Path | None,
    top: int | None,
    instruction: str | None,
    as_json: bool,
    timings: bool,
    loading: dict[str, Any],
) -> None:
    """Print TEXTS, the one that answers QUERY best first, each after its score, by the reranker MODEL: an .eqf or .gguf
    file, a checkpoint or a Hub repository."""
    given = [*texts, *(lines_of(lines) if lines is not None else [])]
    if not given:
        raise UsageError('there is no text: give some after the query (e.g. edgeq rerank m.eqf "Who?" "I"), or --file')
    with load_model(model, loading) as loaded:
        with status(f"scoring {len(given)} texts") as say:
            scores = loaded.rerank(
                query, given, instruction=instruction, progress=lambda done: say(f"{done} of {len(given)} texts")
            )
        if loaded.ranking_timings.cut:
            click.echo(f"edgeq: {loaded.ranking_timings.cut} of {len(given)} texts were cut", err=True)
        if timings:
            _show(loaded)
    order = sorted(range(len(given)), key=lambda i: -scores[i])[:top]  # of equal ones the first comes first
    if as_json:
        found = [{"index": i, "score": float(scores[i]), "text": given[i]} for i in order]
        show_json(found)
        return
    for i in order:
        click.echo(f"{scores[i]:.4f}  {given[i]}")


def _show(model: "Model") -> None:
    """How long loading and scoring took, on stderr."""
    t = model.ranking_timings
    texts = t.texts / t.seconds if t.seconds > 0 else 0.0
    click.echo(
        f"load        {model.timings.load_s:8.3f} s\n"
        f"scoring     {t.seconds:8.3f} s  {t.tokens:6d} tokens {t.rate:9.2f} tokens/s  {texts:9.2f} texts/s",
        err=True,
    )
