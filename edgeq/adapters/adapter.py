"""What an adapter is, in whichever form it comes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.errors import CheckpointError

F32 = npt.NDArray[np.float32]


class Pair(NamedTuple):
    """`factor` * b @ a, f32 [rows, rank] @ [rank, columns], is added to a matrix [rows, columns]."""

    a: F32
    b: F32
    factor: float


@dataclass(frozen=True)
class Adapter:
    """One that was read: `pairs` by the names of matrices, which are Hugging Face's, or those of GGUF's `architecture`.

    weights: the file that they are in; base: what it was trained for, where it says that
    """

    weights: str
    pairs: Mapping[str, Pair]
    base: str = ""
    architecture: str = ""


def checked_pair(a: F32, b: F32, factor: float, weights: str, names: tuple[str, str]) -> Pair:
    """A pair whose numbers are finite, and whose ranks agree. CheckpointError for another; `names` are its tensors'."""
    for matrix, name in zip((a, b), names, strict=True):
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise CheckpointError(f"{weights}: tensor {name!r} is {list(matrix.shape)}: a matrix is needed")
        if not np.isfinite(matrix).all():
            where = np.argwhere(~np.isfinite(matrix))[0]
            raise CheckpointError(
                f"{weights}: tensor {name!r} holds {matrix[tuple(where)]} at {where.tolist()}: the adapter is damaged, "
                "train or download it again"
            )
    if a.shape[0] != b.shape[1]:
        raise CheckpointError(
            f"{weights}: tensor {names[0]!r} has rank {a.shape[0]}, {names[1]!r} has {b.shape[1]}: the adapter is "
            "damaged, download it again"
        )
    return Pair(a, b, factor)
