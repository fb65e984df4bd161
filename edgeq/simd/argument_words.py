"""Load a kernel's argument block: int64 words, named by the NamedTuple that the host made them of."""

import functools
from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.emit import I64


@functools.cache  # the same operation for all kernels that share a helper
def words_of(block: type[tuple[int, ...]]) -> Callable[[int], Any]:
    """`load(args)`: the words at the address `args` as a `block`, for compiled code; those that are not used cost
    nothing."""
    names: tuple[str, ...] = block._fields  # type: ignore[attr-defined]

    @intrinsic
    def load(typingctx, args):
        words = types.NamedUniTuple(types.int64, len(names), block)

        def generate(context, b, signature, args):
            values = [emit.load(b, emit.offset(b, args[0], 8 * i), I64) for i in range(len(names))]
            return context.make_tuple(b, words, values)

        return words(types.int64), generate

    return load
