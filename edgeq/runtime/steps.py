"""The plan compiler's steps for operations that only some architectures have: part of `plan.Compiler`, in a file of
their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeq.blocks.table import PANEL_ROWS
from edgeq.kernels.layout import GROUP, SUMS_BYTES
from edgeq.runtime.kv_cache import ConvCache
from edgeq.runtime.memory import aligned, bits, round_up
from edgeq.runtime.record import Operation

POSITION = 1  # the word of Plan.params that holds the first position

if TYPE_CHECKING:
    from edgeq.runtime.plan import Buffer, Compiler


def _layer_norm(c: Compiler, op: Operation) -> None:
    x, out = c.buffers[op.inputs[0].index], c.buffers[op.output.index]
    args = [
        x.address,
        x.stride,
        op.output.width,
        c._vector(op.weight),
        c._vector(op.bias) if op.bias else 0,
        bits(op.eps),
        out.address,
        out.stride,
        *c._packed_addresses(out),
        c._count(op.output),
    ]
    c._step("layer_norm", args, [x], [out])


def _head_norm(c: Compiler, op: Operation) -> None:
    x, head_dim = c.buffers[op.output.index], c.shapes[op.weight][0]
    args = [x.address, x.stride, op.output.width // head_dim, head_dim, c._vector(op.weight), bits(op.eps)]
    c._step("head_norm", [*args, c._count(op.output)], [], [x])


def _positions(c: Compiler, op: Operation) -> None:
    x, rows = c.buffers[op.output.index], c.shapes[op.weight][0]
    c.learned_positions = rows
    args = [c._f32(op.weight), op.output.width, x.address, x.stride]
    c._step("positions", [*args, c._count(op.output), c._param(POSITION)], [], [x])


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
        *c._packed_addresses(out),
        c._count(op.output),
    ]
    c._step(f"activation:{op.variant}", args, [x, up], [out])


def _elementwise(c: Compiler, op: Operation) -> None:
    x, others = c.buffers[op.output.index], [c.buffers[v.index] for v in op.inputs]
    y, gate = (*[(b.address, b.stride) for b in others], (0, 0), (0, 0))[:2]
    args = [x.address, x.stride, op.output.width, *y, *gate, bits(op.factor), c._count(op.output)]
    c._step(f"elementwise:{op.variant}", args, [*others], [x])


def _add_row(c: Compiler, op: Operation) -> None:
    """A row of an F32 matrix, whose panels hold its values 16 apart, added to each token's."""
    x, width = c.buffers[op.output.index], op.output.width
    row = aligned(round_up(width, GROUP) * 4).view(np.float32)
    c._f32(op.weight)
    row[:width] = c.file.data(op.weight).view(np.float32)[: width * PANEL_ROWS : PANEL_ROWS]
    c.keep.append(row)
    args = [x.address, x.stride, width, row.ctypes.data, 0, 0, 0, bits(1.0), c._count(op.output)]
    c._step("elementwise:add", args, [], [x])


def _short_conv(c: Compiler, op: Operation) -> None:
    x, out, width = c.buffers[op.inputs[0].index], c.buffers[op.output.index], op.output.width
    taps = c.shapes[op.weight][1]
    cache = c.caches[op.layer] = ConvCache(width, taps, c.context, c.capacity[False])
    args = [
        x.address,
        x.stride,
        width,
        c._f32(op.weight),
        taps,
        c._vector(op.bias) if op.bias else 0,
        cache.rows.ctypes.data,
        cache.ring,
        out.address,
        out.stride,
        c._count(op.output),
        c._param(POSITION),
    ]
    c._step("short_conv", args, [x], [out, cache])


def _rows(c: Compiler, rows: int, width: int, read_by: str = "") -> Buffer:
    """Rows that experts work on; packed too if the matrix `read_by` is quantized."""
    from edgeq.runtime.plan import Buffer

    width = round_up(width, GROUP)
    buffer = Buffer(c._take(rows * width * 4)[: rows * width * 4].view(np.float32).reshape(rows, width), width * 4)
    if read_by and c._is_packed(read_by):
        buffer.words = c._take(rows * width)
        buffer.sums = c._take(rows * width // GROUP * SUMS_BYTES)
    return buffer


def _multiply(c: Compiler, weight: str, x: Buffer, out: Buffer, segments: np.ndarray) -> None:
    info = c.file.tensors[weight]
    experts, rows, columns = info.shape
    source = c._packed_addresses(x) if c._is_packed(weight) else (x.address, x.stride)
    args = [c._weights(weight), rows, columns, *source, out.address, out.stride, info.nbytes // experts]
    biases = _expert_biases(c, weight.removesuffix("weight") + "bias", experts, rows)
    c._step(f"experts:{info.type}", [*args, segments.ctypes.data, *biases], [x, segments], [out])


def _expert_biases(c: Compiler, name: str, experts: int, rows: int) -> tuple[int, int]:
    """Address and bytes per expert of the vector `name`, of experts one after the other; 0, 0 if there is none."""
    if name not in c.shapes:
        return 0, 0
    width = round_up(rows, GROUP)
    if width == rows:
        return c._vector(name), 4 * rows
    padded = c._new(experts * width * 4)[: experts * width * 4].view(np.float32).reshape(experts, width)
    padded[:, :rows] = c.file.data(name).view(np.float32).reshape(experts, rows)
    c.keep.append(padded)
    return int(padded.ctypes.data), 4 * width


def _experts(c: Compiler, op: Operation) -> None:
    """Route, gather each expert's rows, gate and up, SwiGLU, down, and add up; all layers share the memory."""
    assert op.experts is not None
    mix, tokens, n = op.experts, c.capacity[False], op.output.width
    names = [f"{mix.prefix}_{part}_exps.weight" for part in ("gate", "up", "down")]
    m = c.shapes[names[0]][1]
    x, router, out = (c.buffers[v.index] for v in (*op.inputs, op.output))
    pairs, count = tokens * mix.top_k, c._count(op.output)
    rows = round_up(pairs, 16) + 16 * min(mix.count, pairs)  # a segment's last tile may be short
    of_pairs = c._take(pairs * 20)
    chosen, slots, weights = of_pairs[: pairs * 8], of_pairs[pairs * 8 : pairs * 16], of_pairs[pairs * 16 :]
    table = c._take((rows + 4 * mix.count + 1) * 8)
    sources, segments = table[: rows * 8], table[rows * 8 : (rows + 3 * mix.count + 1) * 8]
    cursors = table[(rows + 3 * mix.count + 1) * 8 :]
    wide, gate, up = _rows(c, rows, n, names[0]), _rows(c, rows, m, names[2]), _rows(c, rows, m)
    to_chosen, to_slots, to_weights = (int(memory.ctypes.data) for memory in (chosen, slots, weights))
    to_sources, to_segments, to_cursors = (int(memory.ctypes.data) for memory in (sources, segments, cursors))
    args = [router.address, router.stride, mix.count, mix.top_k, int(mix.normalized), to_chosen, to_weights, count]
    args += [bits(mix.factor)]
    c._step("route:choose", args, [router], [of_pairs])
    args = [mix.count, mix.top_k, to_chosen, to_slots, to_sources, to_segments, to_cursors, count]
    c._step("route:group", args, [of_pairs], [of_pairs, table])
    args = [x.address, x.stride, n, wide.address, wide.stride, *c._packed_addresses(wide), to_segments, to_sources]
    c._step("expert_rows:gather", args, [x, table], [wide])
    _multiply(c, names[0], wide, gate, segments)
    _multiply(c, names[1], wide, up, segments)
    args = [gate.address, up.address, m, gate.address, gate.stride, *c._packed_addresses(gate), to_segments]
    args += [bits(mix.alpha), bits(mix.limit)]
    c._step("expert_rows:clamped" if mix.limit else "expert_rows:silu_mul", args, [up, table], [gate])
    _multiply(c, names[2], gate, wide, segments)
    args = [out.address, out.stride, n, wide.address, wide.stride, mix.top_k, to_slots, to_weights, count]
    c._step("expert_rows:combine", args, [wide, of_pairs], [out])
    for buffer in (wide, gate, up):
        c._release(buffer)
    c.free += [of_pairs, table]


STEPS: dict[str, Callable[[Compiler, Operation], None]] = {
    "layer_norm": _layer_norm,
    "head_norm": _head_norm,
    "positions": _positions,
    "add_row": _add_row,
    "activation": _activation,
    "elementwise": _elementwise,
    "experts": _experts,
    "short_conv": _short_conv,
}
