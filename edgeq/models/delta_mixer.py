"""Gated delta nets (arXiv:2412.06464): linear attention whose memory is a matrix per head."""

from typing import NamedTuple, Protocol

from edgeq.models.config import Config
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Value

IN_TURN = "edgeq_heads_in_turn"  # a key of ours, true of files whose value heads are ordered as GGUF's readers want


class DeltaShape(NamedTuple):
    """`heads` of values, each of `value_dim`, and `key_heads` of queries and keys of `key_dim`, which neighbours share,
    or which heads take `in_turn`; a convolution of `taps` positions."""

    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    taps: int
    in_turn: bool = False

    def settings(self) -> dict[str, float]:
        """What config.json says of them."""
        return {
            "linear_num_value_heads": self.heads,
            "linear_num_key_heads": self.key_heads,
            "linear_key_head_dim": self.key_dim,
            "linear_conv_kernel_dim": self.taps,
        }

    @property
    def keys(self) -> int:
        """Values of all keys."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """Values of all heads."""
        return self.heads * self.value_dim


class Projected(Protocol):
    """The projections of a layer as a checkpoint keeps them: q, k and v; the output's gate; of each head, what it
    learns by and what it forgets by."""

    def tensors(self, t: Tensors, n: int, shape: DeltaShape) -> None:
        """Add them, which read `n` values, and the convolution."""


class FourProjections(NamedTuple):
    """A tensor each, as in Qwen3.5."""

    def tensors(self, t: Tensors, n: int, shape: DeltaShape) -> None:
        """The four."""
        for name, part, rows in (
            ("attn_qkv", "qkv", 2 * shape.keys + shape.values),
            ("attn_gate", "z", shape.values),
            ("ssm_beta", "b", shape.heads),
            ("ssm_alpha", "a", shape.heads),
        ):
            Matrix(name, f"linear_attn.in_proj_{part}", rows, n).tensors(t)
        one_convolution(t, shape)


class SixProjections(NamedTuple):
    """As in OLMo Hybrid: queries, keys and values apart, and so their convolutions, or these in one."""

    def tensors(self, t: Tensors, n: int, shape: DeltaShape) -> None:
        """Six, and three."""
        rows = {"q": shape.keys, "k": shape.keys, "v": shape.values}
        t.joined("attn_qkv", {f"linear_attn.{part}_proj": count for part, count in rows.items()}, n)
        for name, part, count in (
            ("attn_gate", "g", shape.values),
            ("ssm_beta", "b", shape.heads),
            ("ssm_alpha", "a", shape.heads),
        ):
            Matrix(name, f"linear_attn.{part}_proj", count, n).tensors(t)
        apart = {f"linear_attn.{part}_conv1d": count for part, count in rows.items()}
        t.depthwise_joined("ssm_conv1d", apart, "linear_attn.conv1d", shape.taps)


class TwoProjections(NamedTuple):
    """As in Qwen3-Next: for each key head its q, k, v and gate; and in another tensor its betas and decays."""

    def tensors(self, t: Tensors, n: int, shape: DeltaShape) -> None:
        """Slices of the two."""
        source, each = "linear_attn.in_proj_{}", shape.heads // shape.key_heads
        size, wide = shape.key_dim, each * shape.value_dim
        step = 2 * size + 2 * wide
        whole = shape.key_heads * step
        firsts, runs = (0, size, 2 * size), (size, size, wide)
        slices = tuple(Fused(whole, first, run, step) for first, run in zip(firsts, runs, strict=True))
        t.runs("attn_qkv", source.format("qkvz"), slices, (shape.keys, shape.keys, shape.values), n)
        gate = Fused(whole, 2 * size + wide, wide, step)
        Matrix("attn_gate", source.format("qkvz"), shape.values, n, fused=gate).tensors(t)
        for name, first in (("ssm_beta", 0), ("ssm_alpha", each)):
            fused = Fused(2 * shape.heads, first, each, 2 * each)
            Matrix(name, source.format("ba"), shape.heads, n, fused=fused).tensors(t)
        one_convolution(t, shape)


def one_convolution(t: Tensors, shape: DeltaShape) -> None:
    """Of queries, keys and values, one after the other."""
    t.depthwise("ssm_conv1d", "linear_attn.conv1d", 2 * shape.keys + shape.values, shape.taps)


class GatedDeltaNet(NamedTuple):
    """Of `n` values of the residual stream; `eps` is that of the norm of each head's result; `strength` the most that
    something is learned by. `names` are the checkpoint's of the projection back, and of the norm."""

    n: int
    shape: DeltaShape
    projected: Projected
    eps: float
    strength: float = 1.0
    names: tuple[str, str] = ("linear_attn.out_proj", "linear_attn.norm")

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("ssm_out", self.names[0], self.n, self.shape.values)

    def tensors(self, t: Tensors) -> None:
        """The projections, the convolution, decays, the norm."""
        shape = self.shape
        self.projected.tensors(t, self.n, shape)
        t.vector("ssm_dt.bias", "linear_attn.dt_bias", shape.heads)
        t.rates("ssm_a.weight", "linear_attn.A_log", shape.heads)
        t.norm("ssm_norm", self.names[1], shape.value_dim)
        self.output.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at, shape = layer_name(i), self.shape
        mixed, gate = g.linear(h, f"{at}attn_qkv.weight"), g.linear(h, f"{at}attn_gate.weight")
        beta, decay = g.linear(h, f"{at}ssm_beta.weight"), g.linear(h, f"{at}ssm_alpha.weight")
        mixed = g.causal_conv(mixed, f"{at}ssm_conv1d.weight", None, layer=i)
        x = g.delta_net(
            mixed,
            decay,
            beta,
            f"{at}ssm_a.weight",
            f"{at}ssm_dt.bias",
            shape.heads,
            shape.key_heads,
            shape.key_dim,
            layer=i,
            in_turn=shape.in_turn,
            strength=self.strength,
        )
        x = g.gated_norm(x, gate, f"{at}ssm_norm.weight", shape.value_dim, self.eps)
        return self.output.graph(g, x, at, add_to)


def read_delta_shape(config: Config) -> DeltaShape:
    """As Qwen's configurations say it. CheckpointError for heads that cannot be shared, UnsupportedError for sizes that
    are no multiple of 16."""
    shape = DeltaShape(
        config.integer("linear_num_value_heads", 32, most=65_536),
        config.integer("linear_num_key_heads", 16, most=65_536),
        config.integer("linear_key_head_dim", 128, most=65_536),
        config.integer("linear_value_head_dim", 128, most=65_536),
        config.integer("linear_conv_kernel_dim", 4, most=64),
        config.flag(IN_TURN),
    )
    if shape.heads % shape.key_heads:
        raise config.malformed(f"{shape.heads} value heads cannot share {shape.key_heads} key heads evenly")
    if shape.key_dim % 16 or shape.value_dim % 16:
        raise config.unsupported(
            f"linear_key_head_dim is {shape.key_dim}, linear_value_head_dim {shape.value_dim}: "
            "multiples of 16 are needed"
        )
    if shape.taps < 2:
        raise config.unsupported("linear_conv_kernel_dim is 1, at least 2 is needed")
    config.refuse(hidden_act="silu")  # of the convolution, and of the gate
    return shape
