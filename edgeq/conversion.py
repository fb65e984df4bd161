"""Converts a checkpoint together with its tokenizer, which is tried before anything is written."""

import os
from collections.abc import Callable, Mapping

from edgeq.quantize import pipeline
from edgeq.quantize.pipeline import Progress, Report
from edgeq.text.tokenizer import FILES, beyond_notes, load_tokenizer


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    type: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    revision: str | None = None,
    allow_no_tokenizer: bool = False,
    announce: Callable[[str], None] | None = None,
) -> Report:
    """Convert the checkpoint `source` (folder, weight file or Hub repository) to the file `out` by a recipe.

    As `edgeq.quantize.pipeline.convert`, which see; here TokenizerError is also raised for a tokenizer that cannot be
    read, or that belongs to another model.
    """
    return pipeline.convert(
        source, out, type, threads, progress, revision, allow_no_tokenizer, announce, check_assets=_check_tokenizer
    )


def _check_tokenizer(assets: Mapping[str, bytes], source: str, vocab_size: int) -> list[str]:
    if not assets.keys() & {*FILES}:
        return []
    return beyond_notes(load_tokenizer(assets, source, vocab_size), vocab_size)
