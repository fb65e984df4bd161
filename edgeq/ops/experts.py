"""A mixture of experts: route the tokens, gather each expert's rows, gate and up, SwiGLU, down, and add up.

The kernel `experts` multiplies each segment of rows (see route.py) with the matrix of its own expert; no other expert
is read. What routes, gathers and adds up is in route.py and expert_rows.py.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.errors import FormatError
from edgeq.graph.aligned import bits, round_up
from edgeq.graph.buffers import Buffer
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP, SUMS_BYTES
from edgeq.ops import expert_rows, matmul, route
from edgeq.ops.route import SEGMENT, Segment


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `top_k` of `count` per token, weighted by the softmax over all, or, if `normalized`, over
    the chosen; the expert matrices are `<prefix>_gate_exps`, `<prefix>_up_exps` and `<prefix>_down_exps`, with biases
    where there are such. What the experts give is multiplied by `factor`. With a `limit` the gate is at most that, what
    it is multiplied with lies within it: (up + 1) gate sigmoid(alpha gate). The vector `bias` is added to the scores
    when experts are chosen, and not when they are weighted.

    activation: of the gate, silu or one of expert_rows.ACTIVATIONS; of expert_rows.ALONE where there is no gate
    sigmoid: scores are each logit's sigmoid, not the softmax; `least` is added to the sum by which they are normalized
    groups: experts lie in so many, and all are chosen from the `top_groups` whose two best experts have most together
    scales: the vector of what each expert's weight is multiplied by
    spread: see route.make
    weighs_inputs: what an expert is given is multiplied by its weight, not what it gives
    """

    count: int
    top_k: int
    normalized: bool
    prefix: str
    factor: float = 1.0
    alpha: float = 1.0
    limit: float = 0.0
    bias: str = ""
    activation: str = "silu"
    sigmoid: bool = False
    least: float = 0.0
    groups: int = 1
    top_groups: int = 1
    scales: str = ""
    spread: float = 0.0
    weighs_inputs: bool = False

    @property
    def reading(self) -> tuple[str, ...]:
        """The matrices that read what an expert is given, by what their names have of their own."""
        return ("up",) if self.activation in expert_rows.ALONE else ("gate", "up")


class Args(NamedTuple):
    weights: int
    rows: int
    columns: int
    words: int  # or f32 rows
    sums: int  # or their stride in bytes
    out: int
    out_stride: int  # bytes
    expert_bytes: int  # of an expert's matrix
    segments: int  # see route.py
    biases: int  # f32 [experts][bias_stride], or 0
    bias_stride: int  # bytes
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0


@dataclass(frozen=True)
class Routed:
    """Memory of a mixture's steps, which all layers share: of pairs of a token and an expert, and of slots."""

    of_pairs: np.ndarray
    chosen: int
    slots: int
    weights: int
    table: np.ndarray
    sources: int
    segments: int
    cursors: int

    @staticmethod
    def take(low: Lowering, pairs: int, rows: int, experts: int) -> "Routed":
        of_pairs, table = low.scratch.take(pairs * 20), low.scratch.take((rows + 4 * experts + 1) * 8)
        pair, slot = int(of_pairs.ctypes.data), int(table.ctypes.data)
        cursors = slot + (rows + 3 * experts + 1) * 8
        return Routed(of_pairs, pair, pair + 8 * pairs, pair + 16 * pairs, table, slot, slot + rows * 8, cursors)


@dataclass(frozen=True)
class MixtureOfExperts(Op):
    """The sum of what the chosen experts make of x, each weighted as `router` [count] says: added to `add_to` in place,
    or a new value."""

    x: Value
    router: Value
    experts: Experts
    add_to: Value | None
    kernels: ClassVar[Variants] = {
        "experts": lambda isa: [bt.name for bt in BLOCK_TYPES.values() if not bt.per_row],
        "route": lambda isa: ["choose", "group"],
        "expert_rows": lambda isa: ["gather", *expert_rows.GATES, "combine"],
    }

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.router

    @property
    def changes(self) -> Value | None:
        return self.add_to

    def lower(self, low: Lowering, out: Value) -> None:
        mix, n = self.experts, out.width
        gate_name, up_name, down_name = (f"{mix.prefix}_{part}_exps.weight" for part in ("gate", "up", "down"))
        m, gated_by = low.shapes[up_name][1], "gate" in mix.reading
        x, router, y = low.buffer(self.x), low.buffer(self.router), low.buffer(out)
        pairs, count = low.capacity[False] * mix.top_k, low.count(out)
        rows = round_up(pairs, 16) + 16 * min(mix.count, pairs)  # a segment's last tile may be short
        routed = Routed.take(low, pairs, rows, mix.count)
        wide, gate = self._rows(low, rows, n, gate_name if gated_by else up_name), self._rows(low, rows, m, down_name)
        up = self._rows(low, rows, m) if gated_by else gate
        choose = route.Choose(
            logits=router.address,
            stride=router.stride,
            experts=mix.count,
            top_k=mix.top_k,
            normalized=int(mix.normalized),
            chosen=routed.chosen,
            weights=routed.weights,
            tokens=count,
            factor=bits(mix.factor),
            bias=low.vector(mix.bias),
            sigmoid=int(mix.sigmoid),
            least=bits(mix.least),
            groups=mix.groups,
            top_groups=mix.top_groups,
            scales=low.vector(mix.scales),
            spread=bits(mix.spread),
        )
        low.tape.add("route:choose", choose, [router], [routed.of_pairs])
        group = route.Group(
            experts=mix.count,
            top_k=mix.top_k,
            chosen=routed.chosen,
            slots=routed.slots,
            sources=routed.sources,
            segments=routed.segments,
            cursors=routed.cursors,
            tokens=count,
        )
        low.tape.add("route:group", group, [routed.of_pairs], [routed.of_pairs, routed.table])
        gather = expert_rows.Gather(
            x=x.address,
            x_stride=x.stride,
            width=n,
            out=wide.address,
            out_stride=wide.stride,
            words=wide.words_at,
            sums=wide.sums_at,
            segments=routed.segments,
            sources=routed.sources,
            top_k=mix.top_k,
            weights=routed.weights if mix.weighs_inputs else 0,
        )
        low.tape.add("expert_rows:gather", gather, [x, routed.of_pairs, routed.table], [wide])
        self._multiply(low, gate_name if gated_by else up_name, wide, gate, routed)
        if gated_by:
            self._multiply(low, up_name, wide, up, routed)
        gated = expert_rows.Gated(
            gate=gate.address,
            up=up.address,
            width=m,
            out=gate.address,
            stride=gate.stride,
            words=gate.words_at,
            sums=gate.sums_at,
            segments=routed.segments,
            alpha=bits(mix.alpha),
            limit=bits(mix.limit),
        )
        kind = "clamped" if mix.limit else "silu_mul" if mix.activation == "silu" else mix.activation
        low.tape.add(f"expert_rows:{kind}", gated, [up, routed.table], [gate])
        self._multiply(low, down_name, gate, wide, routed)
        combine = expert_rows.Combine(
            out=y.address,
            out_stride=y.stride,
            width=n,
            rows=wide.address,
            rows_stride=wide.stride,
            top_k=mix.top_k,
            slots=routed.slots,
            weights=0 if mix.weighs_inputs else routed.weights,
            tokens=count,
            fresh=int(self.add_to is None),
        )
        low.tape.add("expert_rows:combine", combine, [wide, routed.of_pairs], [y])
        for memory in (wide, gate, *((up,) if gated_by else ()), routed.of_pairs, routed.table):
            low.scratch.release(memory)

    def _rows(self, low: Lowering, rows: int, width: int, read_by: str = "") -> Buffer:
        """Rows that experts work on; packed too if the matrix `read_by` is quantized."""
        return low.scratch.buffer(rows, round_up(width, GROUP), True, read_by != "" and low.is_packed(read_by))

    def _multiply(self, low: Lowering, weight: str, x: Buffer, out: Buffer, routed: Routed) -> None:
        info = low.tensor(weight)
        if low.token_scale(weight) is not None:
            what = f"{low.file.path}: tensor {weight} is {info.type}, which experts cannot be"
            raise FormatError(f"{what}: convert the model again with Q8_0")
        experts, rows, columns = info.shape
        words, sums = low.activations(x, weight)
        biases, bias_stride = self._biases(low, weight.removesuffix("weight") + "bias", experts, rows)
        args = Args(
            weights=low.weights(weight),
            rows=rows,
            columns=columns,
            words=words,
            sums=sums,
            out=out.address,
            out_stride=out.stride,
            expert_bytes=info.nbytes // experts,
            segments=routed.segments,
            biases=biases,
            bias_stride=bias_stride,
        )
        low.tape.add(f"experts:{info.type}", args, [x, routed.table], [out])

    def _biases(self, low: Lowering, name: str, experts: int, rows: int) -> tuple[int, int]:
        """Address and bytes per expert of the vector `name`, of experts one after the other; 0, 0 if there is none."""
        if name not in low.shapes:
            return 0, 0
        width = round_up(rows, GROUP)
        if width == rows:
            return low.vector(name), 4 * rows
        padded = low.scratch.new(experts * width * 4)[: experts * width * 4].view(np.float32).reshape(experts, width)
        padded[:, :rows] = low.file.data(name).view(np.float32).reshape(experts, rows)
        low.keep.append(padded)
        return int(padded.ctypes.data), 4 * width


def make(variant, isa):
    """The kernel for the block type `variant`."""
    from edgeq.kernels.multiply import make_multiply
    from edgeq.kernels.turns import crew_of, for_part
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64

    arguments, segment = words_of(Args), words_of(Segment)
    multiply, plain = make_multiply(variant, isa), not block_type(variant).quantized

    def kernel(args, thread, n_threads):
        a = arguments(args)
        crew = crew_of(a.counters, a.barriers, thread, n_threads)
        for s in range(load_i64(a.segments)):
            expert, first, count = segment(a.segments + 8 + s * SEGMENT)
            if plain:
                source, beside = a.words + first * a.sums, a.sums
            else:
                source, beside = a.words + first * a.columns, a.sums + first * (a.columns // 32) * SUMS_BYTES
            multiply(
                a.weights + expert * a.expert_bytes,
                a.rows,
                a.columns,
                source,
                beside,
                a.out + first * a.out_stride,
                a.out_stride,
                count,
                a.biases + expert * a.bias_stride if a.biases != 0 else 0,
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
    result = np.zeros((len(x), weights.shape[1]), np.float32)
    for expert, first, count in segments:
        result[first : first + count] = matmul.reference(weights[expert], name, x[first : first + count])
        if biases is not None:
            result[first : first + count] += biases[expert]
    return result
