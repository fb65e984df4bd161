"""What is done to every value of a row alike, in place: scaling, adding, capping, gating."""

import numpy as np

from edgeq.simd.exp import exp
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_i64
from edgeq.simd.vector import (
    add,
    device,
    div,
    fma,
    load_f32x16,
    load_splat_f32,
    mul,
    neg,
    splat_f32,
    store_f32x16,
    sub,
)


@device
def tanh(x):
    """1 - 2 / (e^2x + 1); within 1e-7, both ends included."""
    one = splat_f32(np.float32(1.0))
    grown = add(exp(add(x, x)), one)
    return sub(one, div(splat_f32(np.float32(2.0)), grown))


@device
def _scale(x, y, row, factor):
    return mul(x, splat_f32(factor))


@device
def _add(x, y, row, factor):
    return fma(load_f32x16(y), splat_f32(factor), x)


@device
def _softcap(x, y, row, factor):
    return mul(tanh(div(x, splat_f32(factor))), splat_f32(factor))


@device
def _gate(x, y, row, factor):
    one = splat_f32(np.float32(1.0))
    return fma(load_f32x16(y), div(one, add(one, exp(neg(load_splat_f32(row))))), x)


_FUNCTIONS = {"scale": _scale, "add": _add, "softcap": _softcap, "gate": _gate}


def make(variant: str, isa: Isa):
    """`scale`: x * factor; `add`: x + factor * y; `softcap`: factor * tanh(x / factor); `gate`: x + sigmoid(g) * y
    with the first value of the row g.

    Argument block: x, x stride, width, y, y stride, g, g stride, factor (f32 bits), address of the token count.
    Rows are padded to 16 columns.
    """
    function = _FUNCTIONS[variant]

    def kernel(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        y, y_stride, g, g_stride = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        factor, count = bits_f32(load_i64(args + 56)), load_i64(load_i64(args + 64))
        vectors = (width + 15) // 16
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            at = (item - token * vectors) * 64
            target = x + token * x_stride + at
            value = function(load_f32x16(target), y + token * y_stride + at, g + token * g_stride, factor)
            store_f32x16(target, value)

    return kernel


def reference(
    kind: str, x: np.ndarray, y: np.ndarray | None = None, g: np.ndarray | None = None, factor: float = 1.0
) -> np.ndarray:
    """The NumPy twin: x and y [tokens, width], g [tokens, 1] -> like x."""
    wide = x.astype(np.float64)
    if kind == "scale":
        wide = wide * factor
    elif kind == "softcap":
        wide = np.tanh(wide / factor) * factor
    elif kind == "add":
        assert y is not None
        wide = wide + factor * y.astype(np.float64)
    else:
        assert y is not None and g is not None
        with np.errstate(over="ignore"):
            wide = wide + y / (1.0 + np.exp(-g.astype(np.float64)))
    return wide.astype(np.float32)
