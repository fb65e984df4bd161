"""What an attention adds to scores by the distance of the two tokens, of every head: T5's buckets of distances, as
MPNet has them (arXiv:1910.10683, section 2.1)."""

import numpy as np
import numpy.typing as npt

FARTHEST = 128  # from where on all distances are one
MARGIN = 16  # beside the distances that there are, zeros that a kernel reads along

F32 = npt.NDArray[np.float32]


def buckets(distances: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Which of `count` buckets the distance from a token to the one that it sees is in: half of them are of what
    follows; half of these are of one distance each, and the others the wider, the farther."""
    half = count // 2
    near, apart = half // 2, np.abs(distances)
    with np.errstate(divide="ignore"):
        steps = np.log(apart.astype(np.float32) / np.float32(near)) / np.float32(np.log(FARTHEST / near))
    far = near + np.where(apart < near, 0, steps * np.float32(half - near)).astype(np.int64)
    return np.where(apart < near, apart, np.minimum(far, half - 1)) + np.where(distances > 0, half, 0)


def by_distance(values: F32, heads: int, context: int) -> F32:
    """f32 [heads, 2 * (context + MARGIN)] of values [buckets * heads]: that of every distance, of none in the
    middle."""
    distances = np.arange(-(context + MARGIN), context + MARGIN)
    table = values.reshape(-1, heads)
    return np.ascontiguousarray(table[buckets(distances, len(table))].T)
