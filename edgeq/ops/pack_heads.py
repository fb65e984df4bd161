"""Activations as int8, a row for each head: before matrices of heads, see head_linear.py and kernels/pack_rows.py."""

from typing import NamedTuple


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    x_step: int  # bytes from a head's values to the next one's
    heads: int
    width: int  # of what is packed of each head
    words: int
    sums: int
    words_step: int  # bytes from a head's words to the next one's
    sums_step: int
    tokens: int  # how many, at this address


def make(variant, isa):
    """Packed rows of whole groups of 32 columns."""
    from edgeq.kernels.pack_rows import make_place
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import load_f32x16

    arguments, place = words_of(Args), make_place(isa.tile)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups = load_i64(a.tokens), a.width // 32
        items = count * a.heads * groups
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            group, row = item % groups, item // groups
            head, token = row % a.heads, row // a.heads
            source = a.x + token * a.x_stride + head * a.x_step + group * 128
            words, sums = a.words + head * a.words_step, a.sums + head * a.sums_step
            place(load_f32x16(source), load_f32x16(source + 64), words, sums, token, group, groups, count)

    return kernel
