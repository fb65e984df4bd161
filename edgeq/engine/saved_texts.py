"""Texts that a model has evaluated, in files: saved by one process, known to another from the beginning."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.engine.shared_session import SharedSession

if TYPE_CHECKING:
    from edgeq.runtime.session import Session


def save(
    shared: SharedSession,
    session: "Session",
    path: str | os.PathLike[str],
    tokens: list[int],
    about: Mapping[str, Any],
) -> int:
    """Write what is evaluated of a text; how many tokens those are. Raises OutputError if that cannot be."""
    from edgeq.runtime import saved

    def write(sequence: Any) -> int:
        saved.save(path, session.program, tokens, sequence, about)
        return int(sequence.position)

    return shared.scheduler.with_text(tokens, write)


def load(shared: SharedSession, session: "Session", path: str | os.PathLike[str]) -> tuple[list[int], dict[str, Any]]:
    """Know a saved text: its tokens, and what the file says of it. Raises as `saved.load` does."""
    from edgeq.runtime import saved

    def read() -> tuple[list[int], dict[str, Any]]:
        tokens, sequence, about = saved.load(path, session.program)
        shared.scheduler.batch.prefixes.keep(tokens, sequence)
        return tokens, about

    return shared.scheduler.alone(read)
