"""A set of adapters for a model, read only where somebody needs to know what they add."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from edgeq.adapters.given import Wanted, files_of
from edgeq.container.reader import File

if TYPE_CHECKING:
    from edgeq.runtime.adapted import LowRank


class AdapterSet:
    """`lora` for the model of `file`. Sets of the same `key` add the same."""

    def __init__(self, file: File, lora: Sequence[Wanted] = ()) -> None:
        self._file, self._lora = file, tuple(lora)
        self.key: tuple[object, ...] = tuple(_states(self._lora))

    @cached_property
    def added(self) -> "dict[str, LowRank]":
        """What is added, by the name of the file's matrix; read now. Raises as `edgeq.adapters.reading` does."""
        if not self._lora:
            return {}
        from edgeq.adapters.reading import added_by
        from edgeq.models import architecture

        return added_by(self._lora, architecture(self._file.metadata["config"], self._file.path))


def _states(lora: Sequence[Wanted]) -> Iterator[object]:
    """Changes with the adapters' files and scales."""
    for path, scale in lora:
        stats = [(os.path.realpath(file), os.stat(file)) for file in files_of(path)]
        yield str(path), scale, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
