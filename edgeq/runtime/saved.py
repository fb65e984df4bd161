"""Sequences in files: written by one process, read by another that has the same model."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeq.container.prefix_file import PagesOf, PrefixFile, write_prefix
from edgeq.container.reader import File
from edgeq.errors import ContextError, FormatError, UsageError
from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.runtime.program import Program
from edgeq.runtime.sequence import Sequence


def save(
    path: str | os.PathLike[str], program: Program, tokens: list[int], sequence: Sequence, about: Mapping[str, Any]
) -> None:
    """Write what a sequence has evaluated, the first of `tokens`. Raises OutputError if that cannot be."""
    states = [
        PagesOf(group.window, group.nbytes, places(program), state.save(sequence.position))
        for group, state in zip(program.plan.groups, sequence.states, strict=True)
    ]
    write_prefix(path, key(program), tokens[: sequence.position], states, about)


def load(path: str | os.PathLike[str], program: Program) -> tuple[list[int], Sequence, dict[str, Any]]:
    """The tokens, the sequence that has evaluated them, and what the file says of the text.

    Raises FormatError, ChecksumError for a damaged file, UsageError for one of another model or other settings,
    ContextError for a text that is too long, MemoryLimitError if the budget has no room.
    """
    file = PrefixFile(path)
    try:
        _check(file, program)
        sequence, end = program.sequence(), len(file.tokens)
        pages = [
            (group, number, target)
            for group, state in enumerate(sequence.states)
            for number, target in state.restore(end, file.numbers(group)).items()
        ]
        with ThreadPoolExecutor(program.threads) as pool:  # what takes long, new memory and sums, releases Python
            list(pool.map(lambda page: file.read_page(*page), pages))
        sequence.position = end
        if sequence.reachable(end) != end:
            raise FormatError(f"{file.path}: lacks pages of its text: it is damaged: make it again")
        return file.tokens, sequence, file.about
    finally:
        file.close()


def key(program: Program) -> dict[str, str]:
    """What a file fits."""
    return {
        "model": fingerprint(program.file),
        "name": os.path.basename(program.file.path),
        "kv": program.kv,
        "rope": f"{program.plan.rope:08x}",
    }


def fingerprint(file: File) -> str:
    """What tells a model from others: see formats/prefix.md."""
    lines = [f"{t.name} {t.type} {'x'.join(map(str, t.shape))} {t.crc32:08x}\n" for t in file.tensors.values()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def places(program: Program) -> int:
    """Positions of a page."""
    return min(program.positions, ATTENTION_BLOCK)


def _check(file: PrefixFile, program: Program) -> None:
    own = key(program)
    if file.key["model"] != own["model"]:
        raise UsageError(f"{file.path}: was made with another model ({file.key['name']}): make it again with this one")
    if file.key["kv"] != own["kv"]:
        raise UsageError(f"{file.path}: its keys and values are {file.key['kv']}: load with --kv {file.key['kv']}")
    groups = [(group.window, group.nbytes, places(program)) for group in program.plan.groups]
    if file.key["rope"] != own["rope"] or file.groups != groups:
        raise UsageError(f"{file.path}: was made for another context: load with that one, or make it again")
    if len(file.tokens) > program.context:
        raise ContextError(
            f"{file.path}: has {len(file.tokens)} tokens, the context {program.context}: load with a larger --context"
        )
    if file.tokens and max(file.tokens) >= program.model.vocab_size:
        raise FormatError(f"{file.path}: has tokens that the model has not: it is damaged: make it again")
