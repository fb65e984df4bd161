"""Whether a file's scales and values are numbers that can be computed with: looked at once, when a model is loaded.

Of a quantized matrix only the headers are read, a few bytes in every hundred; of plain ones all of it, at the speed of
memory. Matrices of experts, and tables of which a token reads a row, are left out, as a text may never read most of
them; so are all matrices of a file that memory does not hold: there NaN is found when it comes out. `edgeq verify`
reads every byte.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from edgeq.blocks.headers import parts
from edgeq.blocks.table import PANEL_ROWS, BlockType, block_type, super_blocks
from edgeq.container.placement import TensorInfo
from edgeq.container.reader import File
from edgeq.errors import FormatError

DIVISORS = "rope_freqs.weight"  # a huge one stands for no rotation
CHUNK = 1 << 18  # elements looked at twice while they are in a core's cache
# Form of a number -> its signed and unsigned integers, and the bits of the least magnitude that cannot be computed
# with: infinity, or what has a square past f32
_FORMS = {
    "<f2": ("<i2", "<u2", 0x7C00),
    "bf16": ("<i2", "<u2", 0x5F00),
    "<f4": ("<i4", "<u4", 0x5F000000),
    "u1": ("i1", "u1", 0xFF),
}
_PLAIN = {"F32": "<f4", "F16": "<f2", "BF16": "bf16"}


def check_finite(file: File, matrices: bool = True, threads: int = 1, but: Collection[str] = ()) -> None:
    """Look at all vectors of a file, and at its matrices, `but` for those named, if these are wanted.

    FormatError that names the first tensor with a scale or a value that is infinite, no number, or too large to square.
    """
    every = file.tensors.values()
    tensors = [
        one
        for one in every
        if one.name != DIVISORS and (len(one.shape) == 1 or (matrices and len(one.shape) == 2 and one.name not in but))
    ]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for tensor, sound in zip(tensors, pool.map(lambda one: _sound(file, one), tensors), strict=True):
            if not sound:
                what = "scale" if block_type(tensor.type).quantized else "value"
                raise FormatError(
                    f"{file.path}: tensor {tensor.name} has a {what} that is not finite, or too large to compute with: "
                    "download or convert it again (--no-check runs it all the same)"
                )


def _sound(file: File, tensor: TensorInfo) -> bool:
    bt, data = block_type(tensor.type), file.data(tensor.name)
    if not bt.quantized:
        form = _PLAIN[bt.name]
        values = data.view(_FORMS[form][0])
        return all(_within(values[start : start + CHUNK], form) for start in range(0, len(values), CHUNK))
    return all(_within(scales, form) for scales, form in _scales(data, tensor.shape[-1], bt))


def _scales(
    data: npt.NDArray[np.uint8], columns: int, bt: BlockType
) -> Iterator[tuple[npt.NDArray[np.signedinteger], str]]:
    """The numbers at the beginning of each header, [panels, super-blocks, numbers], some panels at a time."""
    floats = [(count, form) for _, count, form in parts(bt) if form in ("<f2", "<f4")] or [parts(bt)[0][1:]]
    form = floats[0][1]
    kind = np.dtype(_FORMS[form][0])
    numbers = PANEL_ROWS * sum(count for count, _ in floats)
    panel, step = bt.panel_bytes(columns), 0 if bt.per_row else bt.super_block_offset(1)
    headers = 1 if bt.per_row else super_blocks(columns)
    view = np.ndarray((len(data) // panel, headers, numbers), kind, data, 0, (panel, step, kind.itemsize))
    at_once = max(CHUNK // (headers * numbers), 1)
    for first in range(0, len(view), at_once):
        yield view[first : first + at_once], form


def _within(values: npt.NDArray[np.signedinteger], form: str) -> bool:
    """Whether all are of less than the form's magnitude: positive ones are the largest signed integers, negative ones
    the largest unsigned ones."""
    _, unsigned, least = _FORMS[form]
    if form == "u1":  # an exponent, without a sign
        return int(values.view(unsigned).max()) < least
    sign = 1 << (8 * values.itemsize - 1)
    return int(values.max()) < least and int(values.view(unsigned).max()) < sign | least
