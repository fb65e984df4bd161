"""Readers of the types whose every group has an f16 scale and an f16 min of its own: Q4_1, Q5_1 (see `codes`)."""

from edgeq.simd.vector import device, load_f16x16, store_f32x16

ROW = 64  # bytes of 16 f32
MINS = 256  # where a header has them


@device
def header_offsets(block, scales, mins):
    for g in range(8):
        store_f32x16(scales + g * ROW, load_f16x16(block + g * 32))
        store_f32x16(mins + g * ROW, min_row(block, g))


@device
def min_row(block, group):
    return load_f16x16(block + MINS + group * 32)
