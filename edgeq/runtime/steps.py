"""Steps of the operations that take a kernel each; attention's and the experts' have files of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeq.blocks.table import PANEL_ROWS
from edgeq.kernels.layout import GROUP
from edgeq.models.graph import Value
from edgeq.runtime.kv_cache import ConvCache
from edgeq.runtime.memory import aligned, bits, round_up
from edgeq.runtime.plan import FIRST_OUTPUT, OUTPUTS, POSITION
from edgeq.runtime.record import Operation

if TYPE_CHECKING:
    from edgeq.runtime.compiler import Compiler


def _embedding(c: Compiler, op: Operation) -> None:
    info, out = c.file.tensors[op.weight], c.buffers[op.output.index]
    args = [
        c.weights(op.weight),
        info.shape[1],
        c.tokens.ctypes.data,
        out.address,
        out.stride,
        c.count(op.output),
    ]
    c.tape.add(f"embedding:{info.type}", args, [], [out])


def _norm(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    args = [
        x.address,
        x.stride,
        op.output.width,
        c.vector(op.weight),
        bits(op.eps),
        out.address,
        out.stride,
        *out.packed,
        c.count(op.output),
    ]
    c.tape.add("norm:add" if op.accumulate else "norm", args, [x], [out])


def _silu_mul(c: Compiler, op: Operation) -> None:
    gate, up = (c.buffers[v.index] for v in op.inputs)
    out = c.buffers[op.output.index]
    args = [
        gate.address,
        up.address,
        gate.stride,
        op.output.width,
        out.address,
        out.stride,
        *out.packed,
        c.count(op.output),
    ]
    c.tape.add("silu_mul", args, [gate, up], [out])


def _copy_rows(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    args = [
        x.address,
        x.stride,
        op.output.width,
        out.address,
        out.stride,
        c.param(FIRST_OUTPUT),
        c.param(OUTPUTS),
    ]
    c.tape.add("copy_rows", args, [x], [out])


def _linear(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    info = c.file.tensors[op.weight]
    if c.is_packed(op.weight):
        source = x.packed
    else:
        source = (x.address, x.stride)
    args = [
        c.weights(op.weight),
        info.shape[0],
        info.shape[1],
        *source,
        out.address,
        out.stride,
        c.count(op.output),
        c.vector(op.bias) if op.bias else 0,
        int(op.accumulate),
    ]
    c.tape.add(f"matmul:{info.type}", args, [x], [out], counts_turns=True)


def quantize(c: Compiler, value: Value) -> None:
    """Pack a value's rows where the kernel that wrote them does not."""
    buffer = c.buffers[value.index]
    args = [
        buffer.address,
        buffer.stride,
        value.width,
        *buffer.packed,
        c.count(value),
    ]
    c.tape.add("quantize", args, [buffer.rows], [buffer.words, buffer.sums])


def _layer_norm(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    args = [
        x.address,
        x.stride,
        op.output.width,
        c.vector(op.weight),
        c.vector(op.bias) if op.bias else 0,
        bits(op.eps),
        out.address,
        out.stride,
        *out.packed,
        c.count(op.output),
    ]
    c.tape.add("layer_norm", args, [x], [out])


def _head_norm(c: Compiler, op: Operation) -> None:
    x, head_dim = c.buffers[op.output.index], c.shapes[op.weight][0]
    args = [x.address, x.stride, op.output.width // head_dim, head_dim, c.vector(op.weight), bits(op.eps)]
    c.tape.add("head_norm", [*args, c.count(op.output)], [], [x])


def _positions(c: Compiler, op: Operation) -> None:
    x, rows = c.buffers[op.output.index], c.shapes[op.weight][0]
    c.learned_positions = rows
    args = [c.f32(op.weight), op.output.width, x.address, x.stride]
    c.tape.add("positions", [*args, c.count(op.output), c.param(POSITION)], [], [x])


def _activation(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    up = c.buffers[op.inputs[1].index] if len(op.inputs) > 1 else None
    args = [
        x.address,
        up.address if up else 0,
        x.stride,
        op.output.width,
        out.address,
        out.stride,
        *out.packed,
        c.count(op.output),
    ]
    c.tape.add(f"activation:{op.variant}", args, [x, up], [out])


def _elementwise(c: Compiler, op: Operation) -> None:
    x, others = c.buffers[op.output.index], [c.buffers[v.index] for v in op.inputs]
    y, gate = (*[(b.address, b.stride) for b in others], (0, 0), (0, 0))[:2]
    args = [x.address, x.stride, op.output.width, *y, *gate, bits(op.factor), c.count(op.output)]
    c.tape.add(f"elementwise:{op.variant}", args, [*others], [x])


def _add_row(c: Compiler, op: Operation) -> None:
    """A row of an F32 matrix, whose panels hold its values 16 apart, added to each token's."""
    x, width = c.buffers[op.output.index], op.output.width
    row = aligned(round_up(width, GROUP) * 4).view(np.float32)
    c.f32(op.weight)
    row[:width] = c.file.data(op.weight).view(np.float32)[: width * PANEL_ROWS : PANEL_ROWS]
    c.keep.append(row)
    args = [x.address, x.stride, width, row.ctypes.data, 0, 0, 0, bits(1.0), c.count(op.output)]
    c.tape.add("elementwise:add", args, [], [x])


def _short_conv(c: Compiler, op: Operation) -> None:
    x, out, width = c.buffers[op.inputs[0].index], c.buffers[op.output.index], op.output.width
    taps = c.shapes[op.weight][1]
    cache = c.caches[op.layer] = ConvCache(width, taps, c.context, c.capacity[False])
    args = [
        x.address,
        x.stride,
        width,
        c.f32(op.weight),
        taps,
        c.vector(op.bias) if op.bias else 0,
        cache.rows.ctypes.data,
        cache.ring,
        out.address,
        out.stride,
        c.count(op.output),
        c.param(POSITION),
    ]
    c.tape.add("short_conv", args, [x], [out, cache])


STEPS: dict[str, Callable[[Compiler, Operation], None]] = {
    "embedding": _embedding,
    "positions": _positions,
    "add_row": _add_row,
    "norm": _norm,
    "layer_norm": _layer_norm,
    "head_norm": _head_norm,
    "linear": _linear,
    "short_conv": _short_conv,
    "silu_mul": _silu_mul,
    "activation": _activation,
    "elementwise": _elementwise,
    "copy_rows": _copy_rows,
}
