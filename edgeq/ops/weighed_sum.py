"""A row plus others, each times a weight that the token has for it: how AltUp's streams see one another."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    stride: int  # of x, the terms and `out`, in bytes
    width: int
    terms: int  # the addresses of their rows, int64
    number: int  # of them
    weights: int  # the first term's of the first token
    weights_stride: int  # bytes
    plus: int  # f32 bits
    out: int  # x itself, or another value
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class WeighedSum(Op):
    """x + the sum of (plus + w) * term over `terms`, whose w are the values of `weights` from column `at` on: in place
    of x, or a new value if x `stays`. All are as wide as x."""

    x: Value
    terms: tuple[Value, ...]
    weights: Value
    at: int = 0
    plus: float = 0.0
    stays: bool = False
    kernels: ClassVar[Variants] = {"weighed_sum": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (*((self.x,) if self.stays else ()), *self.terms, self.weights)

    @property
    def changes(self) -> Value | None:
        return None if self.stays else self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, weights = low.buffer(self.x), low.buffer(out), low.buffer(self.weights)
        terms = [low.buffer(term) for term in self.terms]
        addresses = np.array([term.address for term in terms], np.int64)
        low.keep.append(addresses)
        args = Args(
            x=x.address,
            stride=x.stride,
            width=out.width,
            terms=int(addresses.ctypes.data),
            number=len(terms),
            weights=weights.address + 4 * self.at,
            weights_stride=weights.stride,
            plus=bits(self.plus),
            out=y.address,
            tokens=low.count(out),
        )
        low.tape.add("weighed_sum", args, [*([x] if self.stays else []), *terms, weights], [y])


def make(variant, isa):
    """Threads share the vectors of all rows; what pads a row stays zero."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_f32, load_i64
    from edgeq.simd.vector import fma, load_f32x16, select_below, splat_f32, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        plus, count, vectors = bits_f32(a.plus), load_i64(a.tokens), (a.width + 15) // 16
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            vector = item - token * vectors
            at, weights = token * a.stride + vector * 64, a.weights + token * a.weights_stride
            total = load_f32x16(a.x + at)
            for i in range(a.number):
                weight = splat_f32(load_f32(weights + 4 * i) + plus)
                total = fma(load_f32x16(load_i64(a.terms + 8 * i) + at), weight, total)
            store_f32x16(a.out + at, select_below(a.width - vector * 16, total, zero_f32x16()))

    return kernel


def reference(x: np.ndarray, terms: list[np.ndarray], weights: np.ndarray, plus: float = 0.0) -> np.ndarray:
    """The NumPy twin: x and terms [tokens, width], weights [tokens, number of terms] -> like x."""
    wide = x.astype(np.float64)
    for i, term in enumerate(terms):
        wide = wide + (weights[:, i : i + 1].astype(np.float64) + plus) * term
    return wide.astype(np.float32)
