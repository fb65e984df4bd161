"""A matrix times one token, streaming panels at the speed of memory: the inside of `matmul` at decode."""

from types import SimpleNamespace

import numpy as np

from edgeq.kernels.codes import SCRATCH
from edgeq.kernels.codes_tables import WIDE_UNIT
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.simd.memory import load_f32, load_i32, load_i64, prefetch, stack, store_i64
from edgeq.simd.vector import (
    device,
    fma,
    load_f32x16,
    load_splat_f32,
    load_u8x16,
    mul,
    splat_f32,
    store_f32x16,
    u8x16_to_f32,
    zero_f32x16,
)

# Bytes asked for ahead: hardware prefetchers stop at the end of a page. Several streams hide each other's waits.
AHEAD_ALONE, AHEAD = 1536, 256
HIGH, LOW = np.float32(256 * WIDE_UNIT), np.float32(WIDE_UNIT)  # of bytes that make a value together


@device
def half_sum(sums, row, half):
    """Scale times sum of the first or second half of a group, for one token; rows of sums are `row` bytes apart."""
    return load_f32(sums) * np.float32(-load_i32(sums + (3 + half) * row))


def make_matvec(kind: SimpleNamespace, ops: SimpleNamespace, streams: int):
    """`matvec(panel, apart, n, groups, words, sums, totals)`: n <= streams panels, `apart` bytes apart, times one token
    into `totals`.

    Group after group, each of all panels: memory gives more when several streams are read at once.
    """
    pair, header_bytes, group_bytes, coded = kind.pair, kind.header_bytes, kind.group_bytes, kind.codes.coded
    has_mins, scale_row, min_row = kind.has_mins, kind.scale_row, kind.min_row
    scale_codes, factors, low_pair = kind.scale_codes, kind.factors, kind.low_pair
    two_bytes = low_pair is not None
    dot_eight, coded_eight = ops.dot_eight, ops.coded_eight
    scale_bytes = 32 if kind.codes.halves else 16
    ahead = AHEAD if streams > 1 else AHEAD_ALONE
    halves = kind.codes.halves
    scratch_bytes, parts_bytes, places_bytes = SCRATCH * streams, 64 * streams, 16 * streams

    @device
    def ask_ahead(group):
        for line in range(0, group_bytes, 64):
            prefetch(group + ahead + line)

    @device
    def plain_group(group, block, g, words, sums, total):
        """total + a group of a type that has its own scale."""
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        dot = dot_eight(line0, line1, line2, line3, line4, line5, line6, line7, words, sums)
        scale = scale_row(block, g)
        dot = mul(dot, scale)
        if two_bytes:
            line0, line1 = low_pair(group, 0)
            line2, line3 = low_pair(group, 1)
            line4, line5 = low_pair(group, 2)
            line6, line7 = low_pair(group, 3)
            low = mul(dot_eight(line0, line1, line2, line3, line4, line5, line6, line7, words, sums), scale)
            dot = fma(dot, splat_f32(HIGH), fma(low, splat_f32(LOW), zero_f32x16()))
        total = fma(dot, load_splat_f32(sums), total)
        return fma(min_row(block, g), load_splat_f32(sums + 4), total) if has_mins else total

    @device
    def coded_group(group, codes, words, sums, part):
        """part + a group in units of its super-block's d."""
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        dot = coded_eight(line0, line1, line2, line3, line4, line5, line6, line7, words, sums, codes)
        return fma(dot, load_splat_f32(sums), part)

    @device
    def close(block, part, mins, here, sums, total):
        """total + a super-block: its dots in units of d, and its mins."""
        d, dmin = factors(block)
        total = fma(d, part, total)
        if has_mins:
            least = zero_f32x16()
            for g in range(here):
                if halves:
                    for half in range(2):
                        row = u8x16_to_f32(load_u8x16(mins + g * 32 + half * 16))
                        least = fma(row, splat_f32(half_sum(sums + g * SUMS_BYTES, 4, half)), least)
                    continue
                least = fma(u8x16_to_f32(load_u8x16(mins + g * 16)), load_splat_f32(sums + g * SUMS_BYTES + 4), least)
            total = fma(dmin, least, total)
        return total

    @device
    def plain_matvec(panel, apart, n, groups, words, sums, totals):
        parts = stack(parts_bytes)
        for s in range(n):
            store_f32x16(parts + s * 64, zero_f32x16())
        for first in range(0, groups, 8):
            group = panel + header_bytes
            for g in range(min(8, groups - first)):
                for s in range(n):
                    at = s * apart
                    ask_ahead(group + at)
                    total = plain_group(group + at, panel + at, g, words, sums, load_f32x16(parts + s * 64))
                    store_f32x16(parts + s * 64, total)
                group += group_bytes
                words += 32
                sums += SUMS_BYTES
            panel = group
        for s in range(n):
            store_f32x16(totals + s * 64, load_f32x16(parts + s * 64))

    @device
    def coded_matvec(panel, apart, n, groups, words, sums, totals):
        scratch, parts, places = stack(scratch_bytes), stack(parts_bytes), stack(places_bytes)
        for s in range(n):
            store_f32x16(totals + s * 64, zero_f32x16())
        for first in range(0, groups, 8):
            here = min(8, groups - first)
            for s in range(n):
                scales, mins = scale_codes(panel + s * apart, scratch + s * SCRATCH)
                store_i64(places + s * 16, scales)
                store_i64(places + s * 16 + 8, mins)
                store_f32x16(parts + s * 64, zero_f32x16())
            group = panel + header_bytes
            for g in range(here):
                for s in range(n):
                    at = group + s * apart
                    ask_ahead(at)
                    scales = load_i64(places + s * 16) + g * scale_bytes
                    part = coded_group(at, scales, words, sums + g * SUMS_BYTES, load_f32x16(parts + s * 64))
                    store_f32x16(parts + s * 64, part)
                group += group_bytes
                words += 32
            for s in range(n):
                mins = load_i64(places + s * 16 + 8)
                part, total = load_f32x16(parts + s * 64), load_f32x16(totals + s * 64)
                store_f32x16(totals + s * 64, close(panel + s * apart, part, mins, here, sums, total))
            sums += here * SUMS_BYTES
            panel = group

    return coded_matvec if coded else plain_matvec
