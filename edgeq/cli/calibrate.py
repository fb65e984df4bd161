"""`edgeq calibrate`: what a model's matrices read while it runs over text, for converting it with less loss."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.announcer import can_move_lines, tell
from edgeq.cli.options import announce, threads_option
from edgeq.cli.progress import SILENCE_S, status, work_bar
from edgeq.cli.units import binary_size
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.conversion.passages import Text
    from edgeq.quantize.calibration import Corpus


@click.command("calibrate")
@click.argument("source")
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Text to run over: UTF-8, or a .jsonl with a conversation a line; may be given several times.  "
    "[default: a mixture of kinds of text, languages and code that comes with edgeq]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.calib]")
@click.option("--tokens", type=click.IntRange(16), help="Of all texts together, at most.  [default: 24576]")
@click.option(
    "-c",
    "--ctx-size",
    type=click.IntRange(16),
    help="Tokens of a sequence, at most.  [default: 512, or what the model was trained for, the less]",
)
@click.option("--random-tokens", type=click.IntRange(0), default=0, help="So many random ones beside.  [default: 0]")
@click.option(
    "--gram",
    multiple=True,
    metavar="PATTERN",
    help="Keep the whole Gram matrix of matrices called so, as 'blk.*.ffn_down.weight'; the head's always is.",
)
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@threads_option("the fast cores, one thread each")
def command(
    source: str,
    texts: tuple[str, ...],
    output: Path | None,
    tokens: int | None,
    ctx_size: int | None,
    random_tokens: int,
    gram: tuple[str, ...],
    revision: str | None,
    threads: int | None,
) -> None:
    """Run SOURCE over text, and keep what each of its matrices reads: `edgeq convert --calibration` loses less then.

    SOURCE is a checkpoint's folder, a weight file, a Hub repository (owner/name), an .eqf or a GGUF file. llama.cpp
    takes the result as an importance matrix. Interrupted, the same command goes on where it was.
    """
    from edgeq.conversion.calibrating import calibrate
    from edgeq.conversion.passages import TOKENS

    given = [text_of(one) for one in texts]
    with status("") as say, work_bar() as show:
        report = calibrate(
            source,
            output,
            given or None,
            tokens=tokens or TOKENS,
            length=ctx_size,
            random_tokens=random_tokens,
            gram=gram,
            threads=threads,
            revision=revision,
            progress=Progress(say),
            conversion=lambda tensor, i, tensors, done, of: show(f"{i + 1}/{tensors} {tensor}", done, of),
            announce=announce,
        )
    for note in report.notes:
        tell(f"note: {note}")
    found = report.calibration
    for line in corpus_lines(found.corpora):
        tell(line)
    tell(
        f"{report.path}: {found.subject}, {len(found.matrices)} matrices, {found.tokens} tokens, "
        f"{binary_size(report.nbytes)}, {report.seconds:.1f} s"
    )


def text_of(given: str) -> "Text":
    """What `[NAME=]FILE` stands for; a file whose name has a `=` is meant before a name."""
    from edgeq.conversion.passages import read_text

    name, equals, path = given.partition("=")
    if equals and not Path(given).exists():
        if not name:
            raise UsageError(f"--text {given}: has an empty name: give NAME=FILE, or a file alone")
        return read_text(path, name)
    return read_text(given)


class Progress:
    """Says how far it is: on the line that moves, or now and then where there is no terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._began, self._first, self._said = say, time.monotonic(), -1, time.monotonic()

    def __call__(self, corpus: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first < 0:
            self._first, self._began = done, now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        left = f", {_clock((total - done) / rate)} left" if done > self._first else ""
        if can_move_lines():
            self._say(f"{corpus:.30}: {done} of {total} tokens{left}")
        elif now - self._said > SILENCE_S:
            self._said = now
            click.echo(f"edgeq: {100 * done // total} % done{left}", err=True)


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def corpus_lines(corpora: Iterable["Corpus"]) -> list[str]:
    """A line for each text, by name: its tokens and, where known, the model's perplexity."""
    ordered = sorted(corpora, key=lambda corpus: corpus.name)
    width, lines = max((len(one.name) for one in ordered), default=0), []
    for one in ordered:
        known = "" if math.isnan(one.perplexity) else f"  perplexity {one.perplexity:.4g}"
        lines.append(f"{one.name:<{width}} {one.tokens:>7} tokens{known}" if one.tokens else one.name)
    return lines
