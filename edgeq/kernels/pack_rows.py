"""Activations as int8: per token and group of 32 columns one f32 scale, packed for tiles of tokens; for matrices whose
rows have one scale, one per token.

Layout for tiles of T tokens (T = 1 when there is one token): words [tile][column / 4][T][4 bytes]; sums
[tile][group][5][T] of 4 bytes: f32 scale, f32 scale * sum, int32 -sum, and -sum of each half of the group. Where the
last tokens fill no tile, theirs is a narrower one, of `rest_width` tokens.
Codes are round(x * 127 / max |x|), ties to even, so they lie in [-127, 127].
With one scale per token sums are [tile][2][T]: f32 scale, int32 -sum. The scale may be given: codes are round(x * (1 /
scale)), and what lies beyond is cut. A NaN makes it NaN all the same.
"""

import numpy as np

from edgeq.kernels.layout import ROW_SUMS_BYTES, SUMS_BYTES
from edgeq.simd.choice import smaller
from edgeq.simd.memory import store_f32, store_i32
from edgeq.simd.vector import (
    device,
    larger,
    larger_bits,
    largest_magnitude,
    largest_of_bits,
    load_f32x16,
    mul,
    round_to_i32,
    splat_f32,
    store_codes,
    store_f32x16,
    sum_i32,
    zero_i32x16,
)

_SMALLEST = np.float32(1e-30)  # below, 127 / max would overflow; such a group is zero


@device
def quantize_group(low, high, words, sums, tile):
    """Quantize 32 values (two vectors) of one token; `words` and `sums` are that token's places in its tile."""
    largest = largest_magnitude(low, high)
    if largest < _SMALLEST:
        scale, inverse = np.float32(0.0), np.float32(0.0)
    else:
        scale, inverse = largest / np.float32(127.0), np.float32(127.0) / largest
    first = round_to_i32(mul(low, splat_f32(inverse)))
    second = round_to_i32(mul(high, splat_f32(inverse)))
    store_codes(words, 4 * tile, first)
    store_codes(words + 16 * tile, 4 * tile, second)
    first_sum, second_sum = sum_i32(first), sum_i32(second)
    row = 4 * tile
    store_f32(sums, scale)
    store_f32(sums + row, scale * np.float32(first_sum + second_sum))
    store_i32(sums + 2 * row, -(first_sum + second_sum))
    store_i32(sums + 3 * row, -first_sum)
    store_i32(sums + 4 * row, -second_sum)


@device
def rest_width(tokens):
    """Tokens of the last tile, which has to hold `tokens`: there are kernels for 2, 4 and 8."""
    return 2 if tokens <= 2 else 4 if tokens <= 4 else 8


def make_place(tile: int):
    """`place(words, sums, token, group, groups, count)`: quantize 32 values into their place among `count` tokens."""

    @device
    def place(low, high, words, sums, token, group, groups, count):
        if count == 1:
            quantize_group(low, high, words + group * 32, sums + group * SUMS_BYTES, 1)
        else:
            lane = token % tile
            first = token - lane
            wide = min(tile, rest_width(count - first))
            at = first * groups + group * wide
            quantize_group(low, high, words + at * 32 + lane * 4, sums + at * SUMS_BYTES + lane * 4, wide)

    return place


def make_keep(tile: int):
    """`keep(low, high, out, words, sums, token, group, groups, count)`: write 32 values of a row as f32 at `out`
    and quantized into their place, each where its address is not 0."""
    place = make_place(tile)

    @device
    def keep(low, high, out, words, sums, token, group, groups, count):
        if out != 0:
            store_f32x16(out, low)
            store_f32x16(out + 64, high)
        if words != 0:
            place(low, high, words, sums, token, group, groups, count)

    return keep


@device
def _cut(x):
    """Between -127 and 127; NaN stays."""
    return larger(splat_f32(np.float32(-127.0)), smaller(splat_f32(np.float32(127.0)), x))


@device
def _quantize_row(source, groups, words, sums, tile, given):
    """Quantize a row of f32 with one scale, `given` or by its largest value if that is 0."""
    bits = zero_i32x16()
    for g in range(groups):
        bits = larger_bits(bits, load_f32x16(source + g * 128), load_f32x16(source + g * 128 + 64))
    largest = largest_of_bits(bits)
    if given != np.float32(0.0):
        scale, inverse = given if largest == largest else largest, np.float32(1.0) / given
    elif largest < _SMALLEST:
        scale, inverse = np.float32(0.0), np.float32(0.0)
    else:
        scale, inverse = largest / np.float32(127.0), np.float32(127.0) / largest
    total = 0
    for g in range(groups):
        for half in range(2):
            value = load_f32x16(source + g * 128 + half * 64)
            codes = round_to_i32(_cut(mul(value, splat_f32(inverse))))
            store_codes(words + (g * 32 + half * 16) * tile, 4 * tile, codes)
            total += sum_i32(codes)
    store_f32(sums, scale)
    store_i32(sums + 4 * tile, -total)


def make_place_row(tile: int):
    """`place_row(source, words, sums, token, groups, count, given)`: quantize a row of f32 with one scale into its
    place among `count` tokens."""

    @device
    def place_row(source, words, sums, token, groups, count, given):
        if count == 1:
            _quantize_row(source, groups, words, sums, 1, given)
        else:
            lane = token % tile
            first = token - lane
            wide = min(tile, rest_width(count - first))
            at, beside = first * groups * 32 + lane * 4, first * ROW_SUMS_BYTES + lane * 4
            _quantize_row(source, groups, words + at, sums + beside, wide, given)

    return place_row
