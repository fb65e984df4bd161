"""Activations as int8: per token and group of 32 columns one f32 scale, packed for tiles of tokens.

Layout for tiles of T tokens (T = 1 when there is one token): words [tile][column / 4][T][4 bytes]; sums
[tile][group][5][T] of 4 bytes: f32 scale, f32 scale * sum, int32 -sum, and -sum of each half of the group. Where the
last tokens fill no tile, theirs is a narrower one, of `rest_width` tokens.
Codes are round(x * 127 / max |x|), ties to even, so they lie in [-127, 127].
"""

import numpy as np

from edgeq.kernels.layout import SUMS_BYTES
from edgeq.simd.memory import store_f32, store_i32
from edgeq.simd.vector import (
    device,
    largest_magnitude,
    mul,
    round_to_i32,
    splat_f32,
    store_codes,
    store_f32x16,
    sum_i32,
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
