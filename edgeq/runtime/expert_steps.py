"""A mixture of experts' steps: route, gather, multiply each expert's rows, combine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeq.kernels.layout import GROUP
from edgeq.runtime.buffers import Buffer
from edgeq.runtime.memory import bits, round_up
from edgeq.runtime.record import Operation

if TYPE_CHECKING:
    from edgeq.runtime.compiler import Compiler


def _rows(c: Compiler, rows: int, width: int, read_by: str = "") -> Buffer:
    """Rows that experts work on; packed too if the matrix `read_by` is quantized."""
    return c.scratch.buffer(rows, round_up(width, GROUP), True, read_by != "" and c.is_packed(read_by))


def _multiply(c: Compiler, weight: str, x: Buffer, out: Buffer, segments: np.ndarray) -> None:
    info = c.file.tensors[weight]
    experts, rows, columns = info.shape
    source = x.packed if c.is_packed(weight) else (x.address, x.stride)
    args = [c.weights(weight), rows, columns, *source, out.address, out.stride, info.nbytes // experts]
    biases = _expert_biases(c, weight.removesuffix("weight") + "bias", experts, rows)
    args += [segments.ctypes.data, *biases]
    c.tape.add(f"experts:{info.type}", args, [x, segments], [out], counts_turns=True)


def _expert_biases(c: Compiler, name: str, experts: int, rows: int) -> tuple[int, int]:
    """Address and bytes per expert of the vector `name`, of experts one after the other; 0, 0 if there is none."""
    if name not in c.shapes:
        return 0, 0
    width = round_up(rows, GROUP)
    if width == rows:
        return c.vector(name), 4 * rows
    padded = c.scratch.new(experts * width * 4)[: experts * width * 4].view(np.float32).reshape(experts, width)
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
    pairs, count = tokens * mix.top_k, c.count(op.output)
    rows = round_up(pairs, 16) + 16 * min(mix.count, pairs)  # a segment's last tile may be short
    of_pairs = c.scratch.take(pairs * 20)
    chosen, slots, weights = of_pairs[: pairs * 8], of_pairs[pairs * 8 : pairs * 16], of_pairs[pairs * 16 :]
    table = c.scratch.take((rows + 4 * mix.count + 1) * 8)
    sources, segments = table[: rows * 8], table[rows * 8 : (rows + 3 * mix.count + 1) * 8]
    cursors = table[(rows + 3 * mix.count + 1) * 8 :]
    wide, gate, up = _rows(c, rows, n, names[0]), _rows(c, rows, m, names[2]), _rows(c, rows, m)
    to_chosen, to_slots, to_weights = (int(part.ctypes.data) for part in (chosen, slots, weights))
    to_sources, to_segments, to_cursors = (int(part.ctypes.data) for part in (sources, segments, cursors))
    args = [router.address, router.stride, mix.count, mix.top_k, int(mix.normalized), to_chosen, to_weights, count]
    args += [bits(mix.factor)]
    c.tape.add("route:choose", args, [router], [of_pairs])
    args = [mix.count, mix.top_k, to_chosen, to_slots, to_sources, to_segments, to_cursors, count]
    c.tape.add("route:group", args, [of_pairs], [of_pairs, table])
    args = [x.address, x.stride, n, wide.address, wide.stride, *wide.packed, to_segments, to_sources]
    c.tape.add("expert_rows:gather", args, [x, table], [wide])
    _multiply(c, names[0], wide, gate, segments)
    _multiply(c, names[1], wide, up, segments)
    args = [gate.address, up.address, m, gate.address, gate.stride, *gate.packed, to_segments]
    args += [bits(mix.alpha), bits(mix.limit)]
    c.tape.add("expert_rows:clamped" if mix.limit else "expert_rows:silu_mul", args, [up, table], [gate])
    _multiply(c, names[2], gate, wide, segments)
    args = [out.address, out.stride, n, wide.address, wide.stride, mix.top_k, to_slots, to_weights, count]
    c.tape.add("expert_rows:combine", args, [wide, of_pairs], [out])
    for memory in (wide, gate, up, of_pairs, table):
        c.scratch.release(memory)


STEPS: dict[str, Callable[[Compiler, Operation], None]] = {"experts": _experts}
