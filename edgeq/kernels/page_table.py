"""Where a row's sequence keeps what it remembers of a position (see graph/pages.py)."""

from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import device


@device
def page_of(pages, row, position):
    """The address of the page of `position` of the row's sequence, whose table's address is in `pages`."""
    return load_i64(load_i64(pages + 8 * row) + position // BLOCK * 8)
