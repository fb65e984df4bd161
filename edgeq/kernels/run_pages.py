"""Runs of a pass over states that replace themselves: pieces that lie in one page, each of which has a state of its own
(see graph/pages.py, RecurrentState)."""

from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
from edgeq.kernels.layout import RUN_FIRST, RUN_POSITION, RUN_ROWS, RUN_WORDS
from edgeq.kernels.page_table import page_of
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import device, load_f32x16, store_f32x16, zero_f32x16


@device
def run_at(runs, number):
    """Of a run: its first row, how many rows, the first one's position."""
    run = runs + number * 8 * RUN_WORDS
    return load_i64(run + 8 * RUN_FIRST), load_i64(run + 8 * RUN_ROWS), load_i64(run + 8 * RUN_POSITION)


@device
def rows_in_page(position, rows):
    """How many of `rows` rows from `position` on lie in its page."""
    return min(rows, BLOCK - position % BLOCK)


@device
def state_at(pages, row, position, offset, nbytes):
    """The address, `offset` into a page, of what a row's sequence knew before `position`, to be changed: `nbytes`, a
    multiple of 64. In a new page that is first copied from the one before, or zero at the beginning."""
    state = page_of(pages, row, position) + offset
    if position == 0:
        for at in range(0, nbytes, 64):
            store_f32x16(state + at, zero_f32x16())
    elif position % BLOCK == 0:
        before = page_of(pages, row, position - 1) + offset
        for at in range(0, nbytes, 64):
            store_f32x16(state + at, load_f32x16(before + at))
    return state
