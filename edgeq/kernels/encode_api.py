"""Encode a matrix with the compiled kernels. Imports no Numba."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edgeq.blocks import reference
from edgeq.blocks.fields import F32, U8
from edgeq.blocks.scale_search import relative_importance
from edgeq.blocks.table import PANEL_ROWS, BlockType, block_type, panels
from edgeq.kernels.argument_blocks import Encode


def prepare(names: Iterable[str], announce: Callable[[str], None] | None = None, weighted: bool = False) -> None:
    """Have the encoders of these block types ready; `announce` hears one line if some must be compiled first.

    weighted: those that are given importances
    """
    from edgeq.toolchain import library

    library.prepare([_kernel(block_type(name), weighted) for name in names if block_type(name).quantized], announce)


def encode_panels(weights: F32, name: str, threads: int = 1, importance: F32 | None = None) -> U8:
    """Panels u8 [tensor_bytes] of finite f32 weights [rows, cols]; the bytes of `edgeq.blocks.reference.encode`.

    Rows are independent: the panels of a matrix are those of its runs of 16 n rows, one after the other. `threads`
    changes nothing but the time. `importance`, f32 [cols], finite and >= 0, says what the squared error of a column
    counts, as the reference has it. UnsupportedError if the type does not accept rows of `cols`.
    """
    bt = block_type(name)
    if not bt.quantized:
        return reference.encode(weights, name)
    from edgeq.toolchain.library import kernel

    weights = np.ascontiguousarray(weights, np.float32)
    rows, cols = weights.shape
    out = np.empty(bt.tensor_bytes(rows, cols), np.uint8)
    relative = relative_importance(importance)
    address = 0 if relative is None else relative.ctypes.data
    scratch = np.empty(threads * cols * PANEL_ROWS if bt.per_row else 0, np.float32)
    words = Encode(weights.ctypes.data, rows, cols, out.ctypes.data, 0, panels(rows), address, scratch.ctypes.data)
    args = np.array(words, np.int64)
    encode = kernel(_kernel(bt, relative is not None))
    if threads == 1:
        encode(args.ctypes.data, 0, 1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda thread: encode(args.ctypes.data, thread, threads), range(threads)))
    return out


def _kernel(bt: BlockType, weighted: bool) -> str:
    return f"encode:{bt.name}-weighted" if weighted else f"encode:{bt.name}"
