"""Error feedback with the compiled kernels. Imports no Numba."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.groups import groups_of
from edgeq.blocks.mending import Sweeps, importances, outside, runs
from edgeq.blocks.table import block_type, panels, super_blocks
from edgeq.kernels.argument_blocks import MEND_BLOCK, MEND_COLUMN, Mend


def prepare(names: Iterable[str], announce: Callable[[str], None] | None = None) -> None:
    """Have the kernels of these block types ready; `announce` hears one line if some must be compiled first."""
    from edgeq.toolchain import library

    library.prepare([f"mend:{name}" for name in names if block_type(name).quantized], announce)


def quantize_panels(
    target: F32,
    order: NDArray[np.int64],
    upper: F32,
    weights: F32,
    name: str,
    threads: int = 1,
    sweeps: Sweeps | None = None,
) -> tuple[U8, F32]:
    """Panels u8 of finite f32 `target` [rows, columns], and the weights f32 [rows, columns] that they decode to: the
    bits of `edgeq.blocks.mending.quantize`, whose arguments these are. `threads` changes nothing but the time.

    Raises UnsupportedError if the type does not accept rows of so many columns.
    """
    from edgeq.toolchain.library import kernel

    bt, target = block_type(name), np.ascontiguousarray(target, np.float32)
    kind, (rows, columns), order = groups_of(bt), target.shape, np.ascontiguousarray(order, np.int64)
    out, decoded = np.empty(bt.tensor_bytes(rows, columns), np.uint8), np.empty_like(target)
    groups = runs(order, kind.columns)
    parts = _joined(upper[:stop, start:stop] for start, stop in groups)
    settling, within = importances(order, weights, kind.columns, kind.span)
    pull = again = np.empty(0, np.float32)
    if sweeps:
        pull = _joined(
            part
            for start, stop in groups
            for part in (outside(sweeps.pull, start, stop), sweeps.pull[start:stop, start:stop])
        )
        again = importances(order, sweeps.weights, kind.columns, kind.span)[1]
    scratch_bytes = columns * MEND_COLUMN + super_blocks(columns) * MEND_BLOCK
    scratch = np.empty(threads * scratch_bytes, np.uint8)
    words = Mend(
        target.ctypes.data,
        rows,
        columns,
        out.ctypes.data,
        decoded.ctypes.data,
        0,
        panels(rows),
        order.ctypes.data,
        parts.ctypes.data,
        settling.ctypes.data,
        within.ctypes.data,
        sweeps.count if sweeps else 0,
        pull.ctypes.data,
        again.ctypes.data,
        scratch.ctypes.data,
        scratch_bytes,
    )
    args, run = np.array(words, np.int64), kernel(f"mend:{bt.name}")
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda thread: run(args.ctypes.data, thread, threads), range(threads)))
    return out, decoded


def _joined(blocks: Iterable[F32]) -> F32:
    """All their values, one after the other."""
    return np.concatenate([np.ascontiguousarray(block, np.float32).reshape(-1) for block in blocks])
