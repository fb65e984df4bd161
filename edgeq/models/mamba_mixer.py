"""Mamba-2's layers (arXiv:2405.21060)."""

from math import isinf
from typing import NamedTuple

from edgeq.models.config import Config, shown
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Value

NO_SCALES = (1.0, 1.0, 1.0, 1.0, 1.0)


class MambaShape(NamedTuple):
    """`heads` of `head_dim` values; `groups` of them share what is read and written, `size` values each; a convolution
    of `taps` positions."""

    heads: int
    head_dim: int
    groups: int
    size: int
    taps: int

    @property
    def values(self) -> int:
        """Of all heads."""
        return self.heads * self.head_dim

    @property
    def shared(self) -> int:
        """Values that are read, or written, of all groups."""
        return self.groups * self.size

    @property
    def channels(self) -> int:
        """Of the convolution."""
        return self.values + 2 * self.shared


class Mamba2(NamedTuple):
    """Of `n` values of the residual stream.

    source: what the checkpoint's names begin with
    bias, conv_bias, out_bias: whether the projection into the layer, the convolution, and the projection out have one
    eps:    of the norm of the results of each group; no norm where it is 0
    gate_first: whether these are gated before they are normed
    scales: of the gate, the values, what is written, what is read, the steps
    least:  of a step
    """

    n: int
    shape: MambaShape
    source: str
    bias: bool
    conv_bias: bool
    out_bias: bool
    eps: float
    gate_first: bool = True
    scales: tuple[float, float, float, float, float] = NO_SCALES
    least: float = 0.0

    @property
    def into(self) -> tuple[Matrix, Matrix, Matrix]:
        """To the gate, to what the convolution reads, to the steps: one tensor in the checkpoint."""
        parts = (("ssm_gate", self.shape.values), ("ssm_x", self.shape.channels), ("ssm_step", self.shape.heads))
        whole, first, found = sum(rows for _, rows in parts), 0, []
        for name, rows in parts:
            found.append(Matrix(name, f"{self.source}.in_proj", rows, self.n, self.bias, Fused(whole, first)))
            first += rows
        return found[0], found[1], found[2]

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("ssm_out", f"{self.source}.out_proj", self.n, self.shape.values, self.out_bias)

    def tensors(self, t: Tensors) -> None:
        """The projections, the convolution, decays, the norm."""
        for matrix in self.into:
            matrix.tensors(t)
        t.depthwise("ssm_conv1d", f"{self.source}.conv1d", self.shape.channels, self.shape.taps, self.conv_bias)
        t.vector("ssm_dt.bias", f"{self.source}.dt_bias", self.shape.heads)
        t.rates("ssm_a.weight", f"{self.source}.A_log", self.shape.heads)
        t.vector("ssm_d.weight", f"{self.source}.D", self.shape.heads)
        if self.eps:
            t.norm("ssm_norm", f"{self.source}.norm", self.shape.values)
        self.output.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at, shape = layer_name(i), self.shape
        gate, x, step = (matrix.graph(g, h, at) for matrix in self.into)
        for value, scale in ((gate, self.scales[0]), (step, self.scales[4])):
            if scale != 1.0:
                g.scale(value, scale)
        conv, counts = f"{at}ssm_conv1d", (shape.values, shape.shared, shape.shared)
        scales = () if self.scales[1:4] == (1.0, 1.0, 1.0) else tuple(zip(counts, self.scales[1:4], strict=True))
        x = g.causal_conv(x, f"{conv}.weight", f"{conv}.bias" if self.conv_bias else None, layer=i, scales=scales)
        vectors = f"{at}ssm_a.weight", f"{at}ssm_dt.bias", f"{at}ssm_d.weight"
        x = g.state_space(x, step, *vectors, shape.heads, shape.groups, shape.size, layer=i, least=self.least)
        if self.eps:
            size = shape.values // shape.groups
            x = g.gated_norm(x, gate, f"{at}ssm_norm.weight", size, self.eps, self.gate_first)
        else:
            x = g.silu_mul(gate, x)
        return self.output.graph(g, x, at, add_to)


def checked_shape(config: Config, shape: MambaShape, values: int) -> MambaShape:
    """A shape that can be computed, of so many values. CheckpointError for one that does not fit together,
    UnsupportedError for sizes that are no multiples of 16."""
    if shape.values != values or shape.heads % shape.groups:
        raise config.malformed(
            f"{shape.heads} Mamba heads of {shape.head_dim} values in {shape.groups} groups do not make up {values}"
        )
    if shape.head_dim % 16 or shape.size % 16:
        raise config.unsupported(
            f"a Mamba head has {shape.head_dim} values and a state of {shape.size}: multiples of 16 are needed"
        )
    if shape.taps < 2:
        raise config.unsupported("the convolution has 1 position, at least 2 are needed")
    return shape


def read_mamba(config: Config, n: int, inner: int | None = None) -> MambaShape:
    """As Granite and Falcon say it; `inner` values of all heads, by default a multiple of `n`."""
    heads = config.integer("mamba_n_heads", 128, most=65_536)
    inner = inner or config.integer("mamba_expand", 2, most=1024) * n
    given = config.get("mamba_d_head", "auto")
    shape = MambaShape(
        heads,
        inner // heads if given in ("auto", None) else config.integer("mamba_d_head", most=65_536),
        config.integer("mamba_n_groups", 1, most=65_536),
        config.integer("mamba_d_state", 256, most=65_536),
        config.integer("mamba_d_conv", 4, most=64),
    )
    refuse_limits(config)
    config.refuse(hidden_act="silu")  # of the convolution, and of the gate
    return checked_shape(config, shape, inner)


def refuse_limits(config: Config) -> None:
    """UnsupportedError for steps that are to be within limits."""
    limits = config.get("time_step_limit")
    if limits is None:
        return
    low, high = limits if isinstance(limits, list | tuple) and len(limits) == 2 else (None, None)
    if isinstance(high, dict):  # how some files write what JSON has no number for
        high = float("inf") if high.get("__float__") == "Infinity" else None
    if low != 0 or not (isinstance(high, float) and isinf(high)):
        raise config.unsupported(f"time_step_limit {shown(limits)} is not supported; supported are 0 and infinity")
