"""Learned positions of a square of patches as those of another rectangle."""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def stretched(table: F32, down: int, across: int) -> F32:
    """Rows [side * side, width] of the patches of a square, row by row, as those of `down` rows of `across` patches:
    f32 [down * across, width]. Linear in both directions, over as many patches as become one where there are fewer, as
    SigLIP 2 does it (arXiv:2502.14786): bilinear interpolation with antialiasing, pixels' middles aligned."""
    side = round(len(table) ** 0.5)
    square = table.reshape(side, side, -1).astype(np.float64)
    wide = _along(square.swapaxes(0, 1), across).swapaxes(0, 1)
    return _along(wide, down).astype(np.float32).reshape(down * across, -1)


def _along(rows: F64, count: int) -> F64:
    """`count` in place of the first axis. Summed in one order, whatever the machine."""
    scale = len(rows) / count
    middles = (np.arange(count) + 0.5) * scale - 0.5
    weights = np.maximum(1.0 - np.abs(np.arange(len(rows)) - middles[:, None]) / max(scale, 1.0), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    found = np.zeros((count, *rows.shape[1:]))
    for source, share in enumerate(weights.T):
        (used,) = np.nonzero(share)
        found[used] += share[used].reshape(-1, *[1] * (rows.ndim - 1)) * rows[source]
    return found
