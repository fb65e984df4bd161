"""What a layer does with each token by itself: an MLP, or a mixture of experts."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from edgeq.models.config import Config
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import RMSNorm
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Experts, Graph, Value


class FeedForward(Protocol):
    """The part of a layer that sees one token."""

    def tensors(self, t: Tensors) -> None:
        """Add what it needs."""

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""


class GatedMLP(NamedTuple):
    """down (activation(gate h) * up h), with `inner_norm` before the down projection if there is one. Of gate h only
    what is larger than its mean by more than `cutoff` standard deviations counts, if there is one."""

    gate: Matrix
    up: Matrix
    down: Matrix
    activation: str
    inner_norm: RMSNorm | None = None
    cutoff: float | None = None

    def tensors(self, t: Tensors) -> None:
        """The three matrices, the norm."""
        for part in (self.gate, self.up, self.down):
            part.tensors(t)
        if self.inner_norm:
            self.inner_norm.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        gate, up = self.gate.graph(g, h, at), self.up.graph(g, h, at)
        gate = gate if self.cutoff is None else g.gaussian_top(gate, self.cutoff)
        x = g.silu_mul(gate, up) if self.activation == "silu" else g.activation(gate, self.activation, up)
        if self.inner_norm:
            x = self.inner_norm.graph(g, x, at)
        return self.down.graph(g, x, at, add_to)


class PlainMLP(NamedTuple):
    """down activation(up h). The activation may have `parameters`, tensors of one value, the checkpoint's names of
    which, and their axes there, stand beside them, or `values` in their place."""

    up: Matrix
    down: Matrix
    activation: str
    parameters: tuple[tuple[str, str, int], ...] = ()
    values: tuple[float, ...] = ()

    def tensors(self, t: Tensors) -> None:
        """The two matrices, the activation's values."""
        self.up.tensors(t)
        self.down.tensors(t)
        for parameter in self.parameters:
            t.scalar(*parameter)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        names = tuple(at + name for name, _, _ in self.parameters)
        x = g.activation(self.up.graph(g, h, at), self.activation, parameters=self.values or names)
        return self.down.graph(g, x, at, add_to)


class ExpertTensors(Protocol):
    """Matrices of all experts, as a checkpoint keeps them."""

    def tensors(self, t: Tensors) -> None:
        """Add them."""


class ExpertMatrix(NamedTuple):
    """A matrix [rows, columns] of each of `num_experts` experts.

    each:   the checkpoint's name of one expert's, `{}` standing for its number, if it keeps them so
    stacked: the names that it may give to one tensor of all instead, in which `fused` is the slice
    """

    name: str
    num_experts: int
    rows: int
    columns: int
    fused: Fused
    each: str = ""
    stacked: tuple[str, ...] = ()

    def tensors(self, t: Tensors) -> None:
        """The matrices as one tensor."""
        if self.each:
            t.experts(self.name, self.each, self.num_experts, self.rows, self.columns)
        for source in self.stacked:
            t.stacked(self.name, source, self.num_experts, self.rows, self.columns, self.fused)


SCALES = "ffn_down_exps.scale"  # of experts' weights, in the file


class MixtureOfExperts(NamedTuple):
    """`top_k` of `num_experts` gated MLPs per token, which `router` chooses: see Experts in ops/experts.py. `bias` is
    the checkpoint's name of what is added for choosing, [1, num_experts] there if `bias_row`, or it is called
    `bias_instead`; `scales` is that of what each expert's weight is multiplied by."""

    router: Matrix
    matrices: Sequence[ExpertTensors]
    num_experts: int
    top_k: int
    normalized: bool
    factor: float = 1.0
    alpha: float = 1.0
    limit: float = 0.0
    bias: str = ""
    bias_row: bool = False
    bias_instead: str = ""
    activation: str = "silu"
    sigmoid: bool = False
    least: float = 0.0
    groups: int = 1
    top_groups: int = 1
    scales: str = ""
    spread: float = 0.0
    weighs_inputs: bool = False

    @property
    def width(self) -> int:
        """Values in between, of each expert."""
        return next(one.rows for one in self.matrices if isinstance(one, ExpertMatrix) and one.name == "ffn_up_exps")

    @property
    def experts_read(self) -> float:
        """A token needs those that are chosen."""
        return self.top_k / self.num_experts

    def settings(self, count: str) -> dict[str, float]:
        """What config.json says of them, which calls their number `count`."""
        return {count: self.num_experts, "num_experts_per_tok": self.top_k}

    def tensors(self, t: Tensors) -> None:
        """The router, the experts."""
        self.router.tensors(t)
        if self.bias:
            (t.row if self.bias_row else t.vector)("exp_probs_b.bias", self.bias, self.num_experts)
        if self.bias_instead:
            t.vector_also("exp_probs_b.bias", self.bias_instead, self.num_experts)
        if self.scales:
            t.vector(SCALES, self.scales, self.num_experts)
        for matrix in self.matrices:
            matrix.tensors(t)

    def scores(self, g: Graph, x: Value, i: int) -> Value:
        """What layer i's router makes of x."""
        return self.router.graph(g, x, layer_name(i))

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None, scores: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`; chosen by `scores`, or by what the router makes of h."""
        scores = self.scores(g, h, i) if scores is None else scores
        return g.experts(h, scores, self._mix(layer_name(i)), add_to)

    def _mix(self, at: str) -> Experts:
        """As the operation knows it; `at` is what the layer's names begin with."""
        return Experts(
            self.num_experts,
            self.top_k,
            self.normalized,
            f"{at}ffn",
            self.factor,
            self.alpha,
            self.limit,
            bias=f"{at}exp_probs_b.bias" if self.bias else "",
            activation=self.activation,
            sigmoid=self.sigmoid,
            least=self.least,
            groups=self.groups,
            top_groups=self.top_groups,
            scales=f"{at}{SCALES}" if self.scales else "",
            spread=self.spread,
            weighs_inputs=self.weighs_inputs,
        )


class SharedExpert(NamedTuple):
    """Beside the chosen experts one for every token, which `gate` of one row weighs."""

    experts: MixtureOfExperts
    shared: GatedMLP
    gate: Matrix

    @property
    def experts_read(self) -> float:
        """Of those that are chosen from."""
        return self.experts.experts_read

    def tensors(self, t: Tensors) -> None:
        """The experts', the shared one's, its gate."""
        for part in (self.experts, self.shared, self.gate):
            part.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        x = self.experts.graph(g, h, i, add_to)
        shared = self.shared.graph(g, h, i)
        return g.sigmoid_gate(shared, self.gate.graph(g, h, layer_name(i)), add_to=x)


class SharedMLP(NamedTuple):
    """Beside the chosen experts one for every token, whose result is multiplied by `factor`."""

    experts: FeedForward
    shared: GatedMLP | PlainMLP
    factor: float = 1.0

    @property
    def one_input(self) -> bool:
        """Whether experts and their router read the same."""
        return bool(getattr(self.experts, "one_input", True))

    @property
    def experts_read(self) -> float:
        """Of those that are chosen from."""
        return float(getattr(self.experts, "experts_read", 1.0))

    def tensors(self, t: Tensors) -> None:
        """The experts', the shared one's."""
        self.experts.tensors(t)
        self.shared.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        x = self.experts.graph(g, h, i, add_to)
        return (
            self.shared.graph(g, h, i, x) if self.factor == 1.0 else g.add(x, self.shared.graph(g, h, i), self.factor)
        )


NAMES = ("gate_proj", "up_proj", "down_proj")  # of a gated MLP's matrices in most checkpoints


def gated(
    n: int,
    m: int,
    activation: str,
    bias: bool = False,
    source: str = "mlp.{}",
    names: tuple[str, str, str] = NAMES,
    suffix: str = "",
    ternary: bool = False,
) -> GatedMLP:
    """A gated MLP of `m` values in between, a tensor each in the checkpoint: `source`, `{}` standing for one of
    `names`; in the file their names end in `suffix`."""
    gate, up, down = (source.format(name) for name in names)
    return GatedMLP(
        Matrix(f"ffn_gate{suffix}", gate, m, n, bias, ternary=ternary),
        Matrix(f"ffn_up{suffix}", up, m, n, bias, ternary=ternary),
        Matrix(f"ffn_down{suffix}", down, n, m, bias, ternary=ternary),
        activation,
    )


def fused_gated(
    n: int,
    m: int,
    activation: str,
    both: str = "mlp.gate_up_proj",
    down: str = "mlp.down_proj",
    suffix: str = "",
    bias: bool = False,
) -> GatedMLP:
    """A gated MLP whose checkpoint has one tensor for `both`: all rows of gate, then those of up."""
    return GatedMLP(
        Matrix(f"ffn_gate{suffix}", both, m, n, bias, fused=Fused(2 * m)),
        Matrix(f"ffn_up{suffix}", both, m, n, bias, fused=Fused(2 * m, first=m)),
        Matrix(f"ffn_down{suffix}", down, n, m, bias),
        activation,
    )


def plain(
    n: int,
    m: int,
    activation: str,
    up: str,
    down: str,
    bias: bool = False,
    transposed: bool = False,
    suffix: str = "",
) -> PlainMLP:
    """An MLP without a gate, of `m` values in between; `up` and `down` are the checkpoint's names, in the file they end
    in `suffix`."""
    return PlainMLP(
        Matrix(f"ffn_up{suffix}", up, m, n, bias, transposed=transposed),
        Matrix(f"ffn_down{suffix}", down, n, m, bias, transposed=transposed),
        activation,
    )


def router(n: int, count: int, source: str = "mlp.gate", instead: str = "mlp.gate") -> Matrix:
    """What chooses among `count` experts, by either of its names in the checkpoint."""
    return Matrix("ffn_gate_inp", source, count, n, instead=instead)


def separate_experts(
    n: int, m: int, count: int, source: str = "mlp.experts.{{}}.{}", names: tuple[str, str, str] = NAMES
) -> tuple[ExpertMatrix, ...]:
    """The matrices of `count` gated MLPs of `m` values in between, a tensor each in the checkpoint, or all in one as
    transformers holds them in memory."""
    gate, up, down = (source.format(name) for name in names)
    both, last = ("mlp.experts.gate_up_proj",), ("mlp.experts.down_proj",)
    return (
        ExpertMatrix("ffn_gate_exps", count, m, n, Fused(2 * m), gate, both),
        ExpertMatrix("ffn_up_exps", count, m, n, Fused(2 * m, first=m), up, both),
        ExpertMatrix("ffn_down_exps", count, n, m, Fused(n), down, last),
    )


COUNTS = ("num_experts", "num_local_experts")  # each may stand for the other


def read_experts(config: Config, key: str, count: int, top_k: int) -> tuple[int, int]:
    """How many experts there are, as `key` says, or as others call it, and how many each token needs; `count` and
    `top_k` are the defaults. CheckpointError if there are fewer than needed."""
    config.refuse(hidden_act="silu")
    key = next((name for name in (key, *COUNTS) if config.get(name) is not None), key)
    count, top_k = config.integer(key, count, most=4096), config.integer("num_experts_per_tok", top_k)
    if top_k > count:
        raise config.malformed(f"num_experts_per_tok is {top_k}, there are {count} experts")
    return count, top_k
