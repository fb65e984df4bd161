"""Expert matrices: each segment of rows (see route.py) times the matrix of its own expert; no other expert is read."""

import numpy as np

from edgeq.kernels import codes
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.kernels.matmul import make_multiply
from edgeq.kernels.route import SEGMENT
from edgeq.kernels.turns import crew_of, for_part
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64


def make(variant: str, isa: Isa):
    """The kernel for the block type `variant`.

    Argument block: weights, rows, columns, words, sums (or f32 rows and their stride for float types), out, out
    stride, bytes of an expert's matrix, segments, biases (f32 [experts][stride]) or 0, their stride in bytes, where
    turns are counted (see turns.py).
    """
    multiply, plain = make_multiply(variant, isa), variant in codes.FLOATS

    def kernel(args, thread, n_threads):
        weights, rows, columns = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        words, sums = load_i64(args + 24), load_i64(args + 32)
        out, stride = load_i64(args + 40), load_i64(args + 48)
        expert_bytes, segments = load_i64(args + 56), load_i64(args + 64)
        biases, bias_stride = load_i64(args + 72), load_i64(args + 80)
        crew = crew_of(args + 88, thread, n_threads)
        for s in range(load_i64(segments)):
            entry = segments + 8 + s * SEGMENT
            first, count = load_i64(entry + 8), load_i64(entry + 16)
            if plain:
                source, beside = words + first * sums, sums
            else:
                source, beside = words + first * columns, sums + first * (columns // 32) * SUMS_BYTES
            multiply(
                weights + load_i64(entry) * expert_bytes,
                rows,
                columns,
                source,
                beside,
                out + first * stride,
                stride,
                count,
                biases + load_i64(entry) * bias_stride if biases != 0 else 0,
                0,
                for_part(crew, s),
            )

    return kernel


def reference(
    weights: np.ndarray,
    name: str,
    x: np.ndarray,
    segments: list[tuple[int, int, int]],
    biases: np.ndarray | None = None,
) -> np.ndarray:
    """The NumPy twin: decoded weights [experts, rows, columns], x [slots, columns] -> [slots, rows].

    `segments`: (expert, first slot, slots); other slots are zero. biases: [experts, rows].
    """
    from edgeq.kernels import matmul

    result = np.zeros((len(x), weights.shape[1]), np.float32)
    for expert, first, count in segments:
        result[first : first + count] = matmul.reference(weights[expert], name, x[first : first + count])
        if biases is not None:
            result[first : first + count] += biases[expert]
    return result
