"""Argument blocks of the kernels that are no operations of a graph; those of operations stand in ops/. Int64 words:
addresses, unless a comment says otherwise."""

from typing import NamedTuple


class Encode(NamedTuple):
    """Of kernels/encode.py: panel p reads rows 16 p and on, and writes at p * panel_bytes."""

    weights: int  # f32 [rows, columns], finite
    rows: int
    columns: int  # a multiple of 32
    panels: int
    first: int  # panel
    last: int  # one past the last panel
    importance: int = 0  # f32 [columns], of those that weigh errors
    scratch: int = 0  # f32 [columns][16] per thread, of types with one scale for a row


MEND_COLUMN, MEND_BLOCK = 208, 4224  # bytes of scratch per column and super-block


class Mend(NamedTuple):
    """Of kernels/mend.py: panel p reads rows 16 p and on, and writes at p * panel_bytes."""

    weights: int  # f32 [rows, columns], finite
    rows: int
    columns: int  # a multiple of 32
    panels: int
    decoded: int  # f32 [rows, columns]: what the panels decode to
    first: int  # panel
    last: int  # one past the last panel
    order: int  # int64 [columns]: in which they are rounded, whole scale groups one after the other
    upper: int  # f32: per group, in that order, [columns up to its end][columns of it]
    settling: int  # f32 [columns]: importances for what a super-block shares
    importance: int  # f32 [columns]: importances within groups, in that order
    sweeps: int  # how often groups are rounded again
    pull: int  # f32, if there are sweeps: per group, in that order, [columns][columns of it], [columns of it] twice
    again: int  # f32 [columns], if there are sweeps: importances within groups, in that order
    scratch: int
    scratch_bytes: int  # per thread: of its columns and super-blocks


class Rearrange(NamedTuple):
    """Of kernels/rearrange.py. Bytes per row count for the side that holds blocks."""

    source: int
    source_panel: int  # bytes per panel
    source_block: int  # bytes per super-block
    source_row: int  # bytes per row
    target: int
    target_panel: int
    target_block: int
    target_row: int
    panels: int  # how many
    blocks: int  # super-blocks of each
    table: int


class Read(NamedTuple):
    """Of kernels/probe.py's `read`."""

    data: int
    nbytes: int  # a multiple of 256 per thread
    out: int  # 64 bytes per thread
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0


class Dot(NamedTuple):
    """Of kernels/probe.py's `dot-4` to `dot-8`."""

    lines: int  # PROBE_LINES code lines
    words: int  # as many of each token of a tile
    sums: int
    repetitions: int  # a multiple of DOT_TURN
    out: int  # tile x 64 bytes per thread
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0
