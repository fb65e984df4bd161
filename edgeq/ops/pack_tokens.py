"""Activations as int8 with one scale per token, before matrices whose rows have one (kernels/pack_rows.py)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    width: int
    words: int
    sums: int
    tokens: int  # how many, at this address
    scale: int  # bits of the f32 that all tokens share; 0 if each has its own


@dataclass(frozen=True)
class PackTokens(Op):
    """x as packed int8 activations with one scale per token: a value of its own. Inserted by passes.py.

    scale: that of all tokens, found by calibration; 0.0 for each one's own
    """

    x: Value
    scale: float = 0.0
    kernels: ClassVar[Variants] = {"pack_tokens": lambda isa: [""]}

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        count = low.count(out)
        args = Args(x.address, x.stride, out.width, y.words_at, y.sums_at, count, bits(self.scale))
        low.tape.add("pack_tokens", args, [x], [y])


def make(variant, isa):
    """Packed rows of whole groups of 32 columns. Threads take tokens."""
    from edgeq.kernels.pack_rows import make_place_row
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64

    arguments, place_row = words_of(Args), make_place_row(isa.tile)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups, given = load_i64(a.tokens), a.width // 32, bits_f32(a.scale)
        for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            place_row(a.x + token * a.x_stride, a.words, a.sums, token, groups, count, given)

    return kernel
