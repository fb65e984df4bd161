"""Activations as int8, where a kernel that does not pack its own result is before a matrix (kernels/pack_rows.py)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

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


@dataclass(frozen=True)
class Pack(Op):
    """x as packed int8 activations beside its f32 rows, in place. Inserted by passes.py."""

    x: Value
    kernels: ClassVar[Variants] = {"pack": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x = low.buffer(out)
        args = Args(x.address, x.stride, out.width, x.words_at, x.sums_at, low.count(out))
        low.tape.add("pack", args, [x.rows], [x.words, x.sums])


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
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            source = a.x + token * a.x_stride + group * 128
            place(load_f32x16(source), load_f32x16(source + 64), a.words, a.sums, token, group, groups, count)

    return kernel
