"""`edgeq prefix`: evaluate a text once, for all that begins with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.options import load_model, model_options
from edgeq.cli.units import binary_size
from edgeq.errors import FormatError
from edgeq.system.input import read_text

if TYPE_CHECKING:
    from edgeq.engine.model import Model


@click.command("prefix")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--prompt",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="UTF-8 file: the system message, or with --raw the beginning of a text.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: PROMPT.eqp]")
@click.option("--raw", is_flag=True, help="Take the text as it is, also where the model has a chat template.")
@model_options
def command(model: Path, prompt: Path, output: Path | None, raw: bool, loading: dict[str, Any]) -> None:
    """Evaluate a text with MODEL and write what the model keeps of it: `--prefix FILE` of chat and run begins with it.

    The file fits MODEL on any CPU, with the same --kv.
    """
    text = read_text(prompt).removesuffix("\n")
    output = output or prompt.with_suffix(".eqp")
    with load_model(model, loading) as loaded:
        if raw or not loaded.has_chat_template:
            tokens = loaded.save_prefix(output, text, {"text": text})
        else:
            tokens = loaded.save_prefix(output, loaded.system_tokens(text), {"system": text})
    tell(f"{output}: {tokens} tokens, {binary_size(output.stat().st_size)}")


def known(path: Path, model: "Model") -> tuple[str | None, str]:
    """Have a model know what a file holds: the system message that this is, or None, and the text.

    Raises as `Model.load_prefix`, FormatError for a file that says of these what is no text.
    """
    about = model.load_prefix(path)
    system, text = about.get("system"), about.get("text", "")
    if not (system is None or _is_text(system)) or not _is_text(text):
        raise FormatError(f"{path}: says of its text what is none: make it again (edgeq prefix)")
    return system, text


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
