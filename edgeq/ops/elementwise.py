"""What is done to every value of a row alike, in place: scaling, adding, capping, gating."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.table import PANEL_ROWS
from edgeq.errors import UnsupportedError
from edgeq.graph.aligned import aligned, bits, round_up
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP

KINDS = ("scale", "add", "mul", "softcap", "clip", "clamp", "gate", "sigmoid")


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    width: int
    y: int
    y_stride: int  # bytes; 0 for one row that is every token's
    gate: int
    gate_stride: int  # bytes
    factor: int  # f32 bits
    tokens: int  # how many, at this address


def _step(
    low: Lowering,
    variant: str,
    x: Value,
    y: Value | None = None,
    gate: Value | None = None,
    factor: float = 1.0,
    row: int = 0,
) -> None:
    """Add the step that changes x; `row` is the address of one that stands for y of every token, or, where there is a
    y, for its gate."""
    changed, read = low.buffer(x), [low.buffer(value) for value in (y, gate) if value is not None]
    (y_at, y_stride), (gate_at, gate_stride) = (*((b.address, b.stride) for b in read), (row, 0), (0, 0))[:2]
    args = Args(
        x=changed.address,
        x_stride=changed.stride,
        width=x.width,
        y=y_at,
        y_stride=y_stride,
        gate=gate_at,
        gate_stride=gate_stride,
        factor=bits(factor),
        tokens=low.count(x),
    )
    low.tape.add(f"elementwise:{variant}", args, read, [changed])


@dataclass(frozen=True)
class _InPlace(Op):
    """Changes x and reads nothing else."""

    x: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x


@dataclass(frozen=True)
class Scale(_InPlace):
    """x * factor, in place."""

    factor: float
    kernels: ClassVar[Variants] = {"elementwise": lambda isa: [*KINDS]}

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "scale", out, factor=self.factor)


@dataclass(frozen=True)
class ScaleBy(_InPlace):
    """x times the one value of the tensor `weight`, in place."""

    weight: str

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "scale", out, factor=float(low.file.data(self.weight).view(np.float32)[0]))


@dataclass(frozen=True)
class Add(_InPlace):
    """x + factor * y, in place of x."""

    y: Value
    factor: float = 1.0

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.y,)

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "add", out, self.y, factor=self.factor)


@dataclass(frozen=True)
class Softcap(_InPlace):
    """cap * tanh(x / cap), in place."""

    cap: float

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "softcap", out, factor=self.cap)


@dataclass(frozen=True)
class Clip(_InPlace):
    """x within -limit and limit, in place."""

    limit: float

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "clip", out, factor=self.limit)


@dataclass(frozen=True)
class Clamp(Op):
    """x no less than the one value of the tensor `least`, and no more than that of `most`, which 0 is within: that is
    what rows are padded with."""

    x: Value
    least: str
    most: str

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        least, most = (float(low.file.data(name).view(np.float32)[0]) for name in (self.least, self.most))
        if not least <= 0.0 <= most:
            what = f"{self.least} is {least:g}, {self.most} is {most:g}"
            raise UnsupportedError(f"{low.file.path}: {what}: bounds that 0 is not within are not supported")
        _step(low, "clamp", out, self.x, factor=least, row=low.vector(self.most))


@dataclass(frozen=True)
class AddVector(_InPlace):
    """x + factor times the values of the vector `weight`, in place."""

    weight: str
    factor: float = 1.0

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "add", out, factor=self.factor, row=low.vector(self.weight))


@dataclass(frozen=True)
class AddRow(_InPlace):
    """x + the first row of `weight`, in place: of an F32 matrix, whose panels hold its values 16 apart."""

    weight: str

    def lower(self, low: Lowering, out: Value) -> None:
        row = aligned(round_up(out.width, GROUP) * 4).view(np.float32)
        low.f32(self.weight)
        row[: out.width] = low.file.data(self.weight).view(np.float32)[: out.width * PANEL_ROWS : PANEL_ROWS]
        low.keep.append(row)
        _step(low, "add", out, row=int(row.ctypes.data))


@dataclass(frozen=True)
class MulRow(_InPlace):
    """x times the values of the vector `weight`, in place."""

    weight: str

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "mul", out, row=low.vector(self.weight))


@dataclass(frozen=True)
class SigmoidGate(Op):
    """sigmoid(gate) * x, `gate` of width 1, added to `add_to` in place."""

    x: Value
    gate: Value
    add_to: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.gate

    @property
    def changes(self) -> Value:
        return self.add_to

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "gate", out, self.x, self.gate)


@dataclass(frozen=True)
class SigmoidMul(_InPlace):
    """x * sigmoid(y), in place of x."""

    y: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.y,)

    def lower(self, low: Lowering, out: Value) -> None:
        _step(low, "sigmoid", out, self.y)


def make(variant, isa):
    """`scale`: x * factor; `add`: x + factor * y; `mul`: x * y; `softcap`: factor * tanh(x / factor); `clip`: x from
    -factor to factor; `clamp`: y from factor to the value g; `gate`: x + sigmoid(g) * y with the first value of the row
    g; `sigmoid`: x * sigmoid(y). Rows are padded to 16 columns."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp, tanh
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import (
        add,
        device,
        div,
        fma,
        larger,
        load_f32x16,
        load_splat_f32,
        mul,
        neg,
        splat_f32,
        store_f32x16,
    )

    @device
    def scale(x, y, gate, factor):
        return mul(x, splat_f32(factor))

    @device
    def add_y(x, y, gate, factor):
        return fma(load_f32x16(y), splat_f32(factor), x)

    @device
    def times_y(x, y, gate, factor):
        return mul(x, load_f32x16(y))

    @device
    def softcap(x, y, gate, factor):
        return mul(tanh(div(x, splat_f32(factor))), splat_f32(factor))

    @device
    def clip(x, y, gate, factor):
        lowest = splat_f32(-factor)
        return neg(larger(lowest, neg(larger(lowest, x))))

    @device
    def clamp(x, y, gate, factor):
        return neg(larger(neg(load_splat_f32(gate)), neg(larger(splat_f32(factor), load_f32x16(y)))))

    @device
    def gated(x, y, gate, factor):
        one = splat_f32(np.float32(1.0))
        return fma(load_f32x16(y), div(one, add(one, exp(neg(load_splat_f32(gate))))), x)

    @device
    def times_sigmoid(x, y, gate, factor):
        return div(x, add(splat_f32(np.float32(1.0)), exp(neg(load_f32x16(y)))))

    arguments = words_of(Args)
    functions = {"scale": scale, "add": add_y, "mul": times_y, "softcap": softcap, "clip": clip, "clamp": clamp}
    function = {**functions, "gate": gated}.get(variant, times_sigmoid)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        factor, count, vectors = bits_f32(a.factor), load_i64(a.tokens), (a.width + 15) // 16
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            at = (item - token * vectors) * 64
            target = a.x + token * a.x_stride + at
            y, gate = a.y + token * a.y_stride + at, a.gate + token * a.gate_stride
            store_f32x16(target, function(load_f32x16(target), y, gate, factor))

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
    elif kind == "clip":
        wide = np.clip(wide, -factor, factor)
    elif kind == "clamp":
        assert y is not None and g is not None
        wide = np.clip(y.astype(np.float64), factor, g)
    elif kind == "add":
        assert y is not None
        wide = wide + factor * y.astype(np.float64)
    elif kind == "mul":
        assert y is not None
        wide = wide * y
    elif kind == "sigmoid":
        assert y is not None
        wide = wide / (1.0 + np.exp(-y.astype(np.float64)))
    else:
        assert y is not None and g is not None
        with np.errstate(over="ignore"):
            wide = wide + y / (1.0 + np.exp(-g.astype(np.float64)))
    return wide.astype(np.float32)
