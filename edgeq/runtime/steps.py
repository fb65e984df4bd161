"""The plan compiler's steps for operations that only some architectures have: part of `plan.Compiler`, in a file of
their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeq.errors import ContextError
from edgeq.runtime.memory import bits, round_up
from edgeq.runtime.record import Operation

POSITION = 1  # the word of Plan.params that holds the first position

if TYPE_CHECKING:
    from edgeq.runtime.plan import Compiler


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
    if c.context > round_up(rows, 16):
        raise ContextError(f"{c.file.path}: has embeddings of {rows} positions: ask for a context of at most {rows}")
    args = [c._weights(op.weight), op.output.width, x.address, x.stride]
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


STEPS: dict[str, Callable[[Compiler, Operation], None]] = {
    "layer_norm": _layer_norm,
    "head_norm": _head_norm,
    "positions": _positions,
    "activation": _activation,
    "elementwise": _elementwise,
}
