"""`edgeq eval`: how good a model is, and how much it lost."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import FORCE, KV, THREADS, check_text, load_model, lora_option
from edgeq.cli.progress import status
from edgeq.errors import UsageError
from edgeq.system.output import write_file

if TYPE_CHECKING:
    from edgeq.engine.model import Model
    from edgeq.evaluate.report import Options

CHUNK = 512
FLOATS = {"F64", "F32", "F16", "BF16"}  # elements of a checkpoint that is not quantized

EPILOG = """
\b
Layouts of a task's lines (.jsonl), besides the original files of HellaSwag, PIQA and LAMBADA:
  {"prompt": "...", "choices": [" a", " b"], "answer": 0}  choose; the answer counts from 0
  {"prompt": "...", "target": " word"}                     go on; right where it is likeliest
A .txt file is HellaSwag in llama.cpp's form, six lines per item.
"""


@click.command("eval", epilog=EPILOG)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="What they are compared with: whatever can be run; a checkpoint's folder in F32, one of the Hub as its name "
    "says (owner/name:F32).",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    callback=check_text,
    metavar="[NAME=]FILE",
    help='Text to predict; may be given several times. Each is a slice; lines of a .jsonl file are objects with "text" '
    'and tags, like "language", which are slices too.',
)
@click.option("-c", "--ctx-size", type=click.IntRange(8), default=CHUNK, show_default=True, help="Tokens of a chunk.")
@click.option("--chunks", type=click.IntRange(1), help="At most so many of each file and slice of it.  [default: all]")
@click.option(
    "--reference-logits",
    type=click.Path(path_type=Path),
    help="Keep the reference's predictions in this file; if it is there, use them again: without --reference too.",
)
@click.option(
    "--reference-top-k",
    type=click.IntRange(1),
    metavar="K",
    help="Keep only the K likeliest tokens of a position: smaller, but KL comes out smaller too (with 2048 of 49152 "
    "by 1 to 2 %, with 8192 by less than 0.5 %).",
)
@click.option(
    "--task", "tasks", multiple=True, type=click.Path(path_type=Path), help="A task's file; may be given several times."
)
@click.option("--items", type=click.IntRange(1), help="At most so many of each task.  [default: all]")
@click.option(
    "--prompts", type=click.Path(path_type=Path), help='Prompts to answer: lines, or objects with "prompt" (.jsonl).'
)
@click.option(
    "--answers",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Without --prompts, go on from so many beginnings in the texts.",
)
@click.option("--answer-tokens", type=click.IntRange(0), default=32, show_default=True, help="Tokens of an answer.")
@json_option
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a page with plots here.")
@lora_option("added to each MODEL's weights, not to the reference's")
@KV
@THREADS
@FORCE
def command(
    models: tuple[Path, ...],
    reference: Path | None,
    texts: tuple[str, ...],
    ctx_size: int,
    chunks: int | None,
    reference_logits: Path | None,
    reference_top_k: int | None,
    tasks: tuple[Path, ...],
    items: int | None,
    prompts: Path | None,
    answers: int,
    answer_tokens: int,
    as_json: bool,
    html_path: Path | None,
    lora: tuple[str, ...],
    **loading: Any,
) -> None:
    """Find out how good MODELs are, and how much they lost beside a --reference.

    Of a --text: perplexity and KL divergence, as llama.cpp's llama-perplexity defines them, also of its slices. Of a
    --task: accuracy, and which items come out otherwise. Of answers to prompts: where they first differ.
    """
    from edgeq.evaluate.greedy import read_prompts
    from edgeq.evaluate.report import Options, evaluate
    from edgeq.evaluate.tasks import read_task
    from edgeq.evaluate.texts import read_passages
    from edgeq.system.input import read_text

    if reference_top_k is not None and reference_logits is None:
        raise UsageError("--reference-top-k says how --reference-logits FILE is kept: give both")
    if reference_logits is not None and not texts:
        raise UsageError("--reference-logits keeps predictions of a text: give --text")
    check_output(html_path)
    if prompts is not None:
        read_text(prompts)  # which needs the models' templates, but is no file before they are loaded either
    options = Options(
        passages=read_passages(texts),
        ctx_size=ctx_size,
        chunks=chunks,
        reference_logits=reference_logits,
        reference_top_k=reference_top_k,
        tasks=[read_task(path, items) for path in tasks],
        answers=answers,
        answer_tokens=answer_tokens,
    )
    with ExitStack() as stack:
        loaded = [stack.enter_context(_load(path, options, {**loading, "lora": lora})) for path in models]
        base = None if reference is None else stack.enter_context(_load(_exact(reference), options, loading))
        if prompts is not None:
            options = Options(**{**vars(options), "prompts": read_prompts(prompts, loaded[0])})
        with status("evaluating") as say:
            report = evaluate(loaded, base, options, say, _names(models, reference))
    if html_path is not None:
        from edgeq.evaluate.page import page

        write_file(html_path, page(report).encode())
    if as_json:
        show_json(report.plain())
        return
    from edgeq.cli.eval_table import lines

    for line in lines(report):
        tell(line)


def _load(path: Path, options: "Options", loading: dict[str, Any]) -> "Model":
    """The model, with a context that takes the chunks."""
    model = load_model(path, loading)
    if options.passages and model.context < options.ctx_size:
        model.close()
        model = load_model(path, {**loading, "context": options.ctx_size})
    return model


def _exact(reference: Path) -> Path:
    """A checkpoint that is not quantized is compared with as it is, rather than as it would run: in F32."""
    from edgeq.checkpoints import open_checkpoint
    from edgeq.cli.facts import form

    if form(reference) != "checkpoint":
        return reference
    with open_checkpoint(reference) as checkpoint:
        floats = all(tensor.dtype in FLOATS for tensor in checkpoint.tensors.values())
    folder = reference if reference.is_dir() else reference.parent
    return Path(f"{folder}:F32") if floats else reference


def _names(models: tuple[Path, ...], reference: Path | None) -> list[str]:
    """What the models are called: their files' names, with folders where those are not enough."""
    paths = [*models, *([] if reference is None else [reference])]
    short = [path.name for path in paths]
    return short if len({*short}) == len(short) else [str(path) for path in paths]


def check_output(path: Path | None) -> None:
    """UsageError for what surely cannot be written: not after minutes of work."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder: give the name of a file to write")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: the folder {path.absolute().parent} does not exist: create it first")
