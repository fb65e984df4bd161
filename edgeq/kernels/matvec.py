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


def make_matvec(kind: SimpleNamespace, ops: SimpleNamespace, streams: int):
    """`matvec(panel, apart, n, groups, words, sums, totals)`: n <= streams panels, `apart` bytes apart, times one token
    into `totals`.

    Group after group, each of all panels: memory gives more when several streams are read at once.
    """
    header_bytes, group_bytes, coded = kind.header_bytes, kind.group_bytes, kind.codes.coded
    has_mins, scale_row, min_row = kind.has_mins, kind.scale_row, kind.min_row
    scale_codes, factors, two_bytes = kind.scale_codes, kind.factors, kind.low_pair is not None
    dot_group = _make_dot(kind.pair, ops)
    dot_low_group = _make_dot(kind.low_pair, ops) if two_bytes else None
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
        dot = dot_group(group, words, sums, 0)
        scale = scale_row(block, g)
        dot = mul(dot, scale)
        if two_bytes:
            low = mul(dot_low_group(group, words, sums, 0), scale)
            dot = fma(dot, splat_f32(HIGH), fma(low, splat_f32(LOW), zero_f32x16()))
        total = fma(dot, load_splat_f32(sums), total)
        return fma(min_row(block, g), load_splat_f32(sums + 4), total) if has_mins else total

    @device
    def coded_group(group, codes, words, sums, part):
        """part + a group in units of its super-block's d."""
        return fma(dot_group(group, words, sums, codes), load_splat_f32(sums), part)

    @device
    def add_mins(mins, sums, least):
        """least + the mins of a group, in units of its super-block's -dmin."""
        if halves:
            for half in range(2):
                row = u8x16_to_f32(load_u8x16(mins + half * 16))
                least = fma(row, splat_f32(half_sum(sums, 4, half)), least)
            return least
        return fma(u8x16_to_f32(load_u8x16(mins)), load_splat_f32(sums + 4), least)

    @device
    def close(block, part, mins, here, sums, total):
        """total + a super-block: its dots in units of d, and its mins."""
        d, dmin = factors(block)
        total = fma(d, part, total)
        if has_mins:
            least = zero_f32x16()
            for g in range(here):
                least = add_mins(mins + g * scale_bytes, sums + g * SUMS_BYTES, least)
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

    @device
    def coded_matvec_alone(panel, apart, n, groups, words, sums, totals):
        """Of one panel: mins are added beside the dots of their groups, which keep other units of a core busy."""
        scratch, total = stack(scratch_bytes), zero_f32x16()
        for first in range(0, groups, 8):
            scales, mins = scale_codes(panel, scratch)
            group = panel + header_bytes
            part, least = zero_f32x16(), zero_f32x16()
            for _ in range(min(8, groups - first)):
                ask_ahead(group)
                part = coded_group(group, scales, words, sums, part)
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

    if not coded:
        return plain_matvec
    return coded_matvec if streams > 1 else coded_matvec_alone
