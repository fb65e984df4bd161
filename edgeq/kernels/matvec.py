"""A panel times one token, at the speed of memory: the inside of `matmul` at decode. `streams` does several at once."""

from types import SimpleNamespace

import numpy as np

from edgeq.kernels.codes import SCRATCH
from edgeq.kernels.codes_tables import WIDE_UNIT
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.simd.memory import load_f32, load_i32, prefetch, stack
from edgeq.simd.target import outlined
from edgeq.simd.vector import (
    device,
    fma,
    load_splat_f32,
    load_u8x16,
    mul,
    splat_f32,
    store_f32x16,
    u8x16_to_f32,
    zero_f32x16,
)

AHEAD = 1536  # bytes asked for ahead: hardware prefetchers stop at the end of a page
HIGH, LOW = np.float32(256 * WIDE_UNIT), np.float32(WIDE_UNIT)  # of bytes that make a value together


@device
def half_sum(sums, row, half):
    """Scale times sum of the first or second half of a group, for one token; rows of sums are `row` bytes apart."""
    return load_f32(sums) * np.float32(-load_i32(sums + (3 + half) * row))


def _make_dot(pair, ops: SimpleNamespace):
    """`dot(group, words, sums, codes)`: a group's dots as f32, times the scales at `codes` where they are codes."""
    dot_eight, first_four, last_four = ops.dot_eight, ops.first_four, ops.last_four

    @device
    def at_once(group, words, sums, codes):
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        return dot_eight(line0, line1, line2, line3, line4, line5, line6, line7, words, sums, codes)

    @device
    def in_two(group, words, sums, codes):
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        so_far = first_four(line0, line1, line2, line3, words, sums, codes)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        return last_four(so_far, line4, line5, line6, line7, words, sums, codes)

    return in_two if ops.in_two else at_once


def make_matvec(kind: SimpleNamespace, ops: SimpleNamespace):
    """`matvec(panel, apart, groups, words, sums, totals)`: a panel times one token into `totals`."""
    header_bytes, group_bytes, halves = kind.header_bytes, kind.group_bytes, kind.codes.halves
    has_mins, scale_row, min_row = kind.has_mins, kind.scale_row, kind.min_row
    scale_codes, factors, two_bytes = kind.scale_codes, kind.factors, kind.low_pair is not None
    dot_group = _make_dot(kind.pair, ops)
    dot_low_group = _make_dot(kind.low_pair, ops) if two_bytes else None
    scale_bytes = 32 if halves else 16

    @device
    def ask_ahead(group):
        for line in range(0, group_bytes, 64):
            prefetch(group + AHEAD + line)

    @device
    def plain_group(group, block, g, words, sums, total):
        """total + a group of a type that has its own scale."""
        dot = dot_group(group, words, sums, 0)
        scale = scale_row(block, g)
        dot = mul(dot, scale)
        if two_bytes:
            low = mul(dot_low_group(group, words, sums, 0), scale)
            dot = fma(dot, splat_f32(HIGH), fma(low, splat_f32(LOW), zero_f32x16()))
        total = fma(dot, load_splat_f32(sums), total)
        return fma(min_row(block, g), load_splat_f32(sums + 4), total) if has_mins else total

    @device
    def add_mins(mins, sums, least):
        """least + the mins of a group, in units of its super-block's -dmin."""
        if halves:
            for half in range(2):
                row = u8x16_to_f32(load_u8x16(mins + half * 16))
                least = fma(row, splat_f32(half_sum(sums, 4, half)), least)
            return least
        return fma(u8x16_to_f32(load_u8x16(mins)), load_splat_f32(sums + 4), least)

    @outlined
    def plain_matvec(panel, apart, groups, words, sums, totals):
        total = zero_f32x16()
        for first in range(0, groups, 8):
            group = panel + header_bytes
            for g in range(min(8, groups - first)):
                ask_ahead(group)
                total = plain_group(group, panel, g, words, sums, total)
                group += group_bytes
                words += 32
                sums += SUMS_BYTES
            panel = group
        store_f32x16(totals, total)

    @outlined
    def coded_matvec(panel, apart, groups, words, sums, totals):
        """Mins are added beside the dots of their groups, which keep other units of a core busy."""
        scratch, total = stack(SCRATCH), zero_f32x16()
        for first in range(0, groups, 8):
            scales, mins = scale_codes(panel, scratch)
            group = panel + header_bytes
            part, least = zero_f32x16(), zero_f32x16()
            for _ in range(min(8, groups - first)):
                ask_ahead(group)
                part = fma(dot_group(group, words, sums, scales), load_splat_f32(sums), part)
                if has_mins:
                    least = add_mins(mins, sums, least)
                group += group_bytes
                scales += scale_bytes
                mins += scale_bytes
                words += 32
                sums += SUMS_BYTES
            d, dmin = factors(panel)
            total = fma(d, part, total)
            if has_mins:
                total = fma(dmin, least, total)
            panel = group
        store_f32x16(totals, total)

    return coded_matvec if kind.codes.coded else plain_matvec
