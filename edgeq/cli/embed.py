"""`edgeq embed`: texts to vectors."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.options import check_text, load_model, model_options, read_text
from edgeq.cli.progress import status
from edgeq.errors import UsageError
from edgeq.system.output import write_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.engine.embedder import Embedder


@click.command("embed")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, callback=check_text)
@click.option(
    "--file", "lines", type=click.Path(path_type=Path), help="Take the texts from a file's lines; - is stdin."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to NAME.npy or NAME.json.  [default: stdout]"
)
@click.option("--pooling", type=click.Choice(["mean", "cls", "last", "max"]), help="Instead of the model's own.")
@click.option("--normalize/--no-normalize", default=None, help="Vectors of length 1.  [default: as the model says]")
@click.option("--prompt-name", help="Put the model's prompt of this name before each text.  [default: the model's own]")
@click.option("--prompt", callback=check_text, help="Put this before each text.")
@click.option("--timings", is_flag=True, help="Print times and speeds on stderr.")
@model_options
def command(
    model: Path,
    texts: tuple[str, ...],
    lines: Path | None,
    output: Path | None,
    pooling: str | None,
    normalize: bool | None,
    prompt_name: str | None,
    prompt: str | None,
    timings: bool,
    loading: dict[str, Any],
) -> None:
    """Embed TEXTS, each as one vector, with MODEL: an .eqf or .gguf file, a checkpoint or a Hub repository.

    The vectors are written as a JSON list of lists, or as a NumPy array f32 [texts, values].
    """
    if output is not None and output.suffix not in (".npy", ".json"):
        raise UsageError(f"{output}: name the output .npy (NumPy) or .json")
    given = [*texts, *(lines_of(lines) if lines is not None else [])]
    if not given:
        raise UsageError('there is no text: give some after the model (e.g. edgeq embed m.eqf "Hello"), or --file')
    with load_model(model, {**loading, "embeddings": True}) as loaded:
        with status(f"embedding {len(given)} texts") as say:
            vectors = loaded.embedder(
                given, pooling, normalize, lambda done: say(f"{done} of {len(given)} texts"), prompt_name, prompt
            )
        if loaded.embedder.timings.cut:
            cut, most = loaded.embedder.timings.cut, loaded.embedder.max_length
            click.echo(f"edgeq: {cut} of {len(given)} texts were cut to the model's {most} tokens", err=True)
        if timings:
            _show(loaded.timings.load_s, loaded.embedder)
    if output is None:
        click.echo(_json(vectors), nl=False)
    else:
        write_file(output, _npy(vectors) if output.suffix == ".npy" else _json(vectors).encode())


def lines_of(path: Path) -> list[str]:
    """The lines of a file; empty ones are none."""
    if str(path) == "-":
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise UsageError("stdin is not UTF-8 text: convert it to UTF-8") from error
    else:
        text = read_text(path)
    return [line for line in text.split("\n") if line.strip()]


def _json(vectors: "npt.NDArray[np.float32]") -> str:
    """A JSON list of lists, a vector per line, in digits enough for the same f32."""
    rows = ("[" + ", ".join(str(value) for value in row) + "]" for row in vectors)
    return "[" + ",\n ".join(rows) + "]\n"


def _npy(vectors: "npt.NDArray[np.float32]") -> bytes:
    """What NumPy's .npy file holds."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, vectors)
    return content.getvalue()


def _show(load_s: float, embedder: "Embedder") -> None:
    """How long loading and embedding took, on stderr."""
    t = embedder.timings
    texts = t.texts / t.seconds if t.seconds > 0 else 0.0
    click.echo(
        f"load        {load_s:8.3f} s\n"
        f"embedding   {t.seconds:8.3f} s  {t.tokens:6d} tokens {t.rate:9.2f} tokens/s  {texts:9.2f} texts/s",
        err=True,
    )
