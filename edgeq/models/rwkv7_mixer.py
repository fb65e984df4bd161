"""RWKV-7's layers (arXiv:2503.14456): both parts mix each token's row with the one before it; the first has a matrix of
memory per head (see ops/wkv.py), the second is an MLP."""

from collections.abc import Iterable
from typing import NamedTuple

from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value, Vectors

MIXED = "rwkvag"  # what is projected of rows mixed each in its own way, in the order in which the file has the weights


class LowRank(NamedTuple):
    """Two matrices of `rank` values between them, `activation` there if there is one, and what is added after them,
    from `n` values to as many. In the file their names end in 1, 2 and 0."""

    name: str
    source: str
    n: int
    rank: int
    activation: str = ""
    added: bool = True

    @property
    def into(self) -> Matrix:
        """To the values in between."""
        return Matrix(f"{self.name}1", f"{self.source}.lora.0", self.rank, self.n)

    @property
    def out(self) -> Matrix:
        """From these."""
        return Matrix(f"{self.name}2", f"{self.source}.lora.2", self.n, self.rank)

    def tensors(self, t: Tensors) -> None:
        """The matrices, the vector."""
        self.into.tensors(t)
        self.out.tensors(t)
        if self.added:
            t.vector(f"{self.name}0.weight", f"{self.source}.lora.2.bias", self.n)

    def graph(self, g: Graph, x: Value, at: str) -> Value:
        """Of x."""
        between = self.into.graph(g, x, at)
        if self.activation:
            between = g.activation(between, self.activation)
        return g.linear(between, f"{at}{self.name}2.weight", f"{at}{self.name}0.weight" if self.added else None)


class Ranks(NamedTuple):
    """Of what keys forget by, are learnt by, of what values are drawn to the first layer's by, and of the gate."""

    decay: int
    rate: int
    value: int
    gate: int


class TimeMix(NamedTuple):
    """Of `n` values of the residual stream, in heads of `size`; `eps` is that of the norm of what each gives. Values of
    the `first` layer are those of no other."""

    n: int
    size: int
    ranks: Ranks
    eps: float
    first: bool

    @property
    def projections(self) -> tuple[Matrix, Matrix, Matrix]:
        """To what is asked for, to keys and to values."""
        n = self.n
        return (
            Matrix("time_mix_receptance", "attn.r_proj", n, n),
            Matrix("time_mix_key", "attn.k_proj", n, n),
            Matrix("time_mix_value", "attn.v_proj", n, n),
        )

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("time_mix_output", "attn.o_proj", self.n, self.n)

    @property
    def low_rank(self) -> dict[str, LowRank]:
        """By the letter of what they are for: decay, rate, gate, values."""
        n, (decay, rate, value, gate) = self.n, self.ranks
        found = {
            "w": LowRank("time_mix_w", "attn.w_lora", n, decay, "tanh"),
            "a": LowRank("time_mix_a", "attn.a_lora", n, rate),
            "g": LowRank("time_mix_g", "attn.g_lora", n, gate, "sigmoid", added=False),
        }
        return found if self.first else {**found, "v": LowRank("time_mix_v", "attn.v_lora", n, value)}

    def tensors(self, t: Tensors) -> None:
        """The weights of the mixtures, the matrices, the vectors, the norm."""
        n = self.n
        t.rows_joined("time_mix_lerp_fused.weight", [f"attn.x_{part}" for part in MIXED], (1, 1, n), "attn.x_x")
        for part in self.projections:
            part.tensors(t)
        for low in self.low_rank.values():
            low.tensors(t)
        self.output.tensors(t)
        t.vector("time_mix_k_k.weight", "attn.k_k", n)
        t.vector("time_mix_k_a.weight", "attn.k_a", n)
        t.flattened("time_mix_r_k.weight", "attn.r_k", (n // self.size, self.size))
        t.norm("time_mix_ln", "attn.g_norm", n, bias=True)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """As `mixed`, of the first layer."""
        return self.mixed(g, h, i, add_to, None)[0]

    def mixed(self, g: Graph, h: Value, i: int, add_to: Value | None, first: Value | None) -> tuple[Value, Value]:
        """Layer i's, of h, added to `add_to`; and the values of the first layer, which are `first` in others."""
        at, low, n = layer_name(i), self.low_rank, self.n
        before, name = g.previous(h, i, "mixed"), f"{at}time_mix_lerp_fused.weight"
        xr, xw, xk, xv, xa, xg = (g.lerp(h, before, name, number * n) for number in range(len(MIXED)))
        r, k, v = (matrix.graph(g, x, at) for matrix, x in zip(self.projections, (xr, xk, xv), strict=True))
        if first is None:
            first = v
        else:
            v = g.lerp(v, first, gate=low["v"].graph(g, xv, at))
        w, a, gate = (low[part].graph(g, x, at) for part, x in zip("wag", (xw, xa, xg), strict=True))
        kappa, alpha, rho = (f"{at}time_mix_{part}.weight" for part in ("k_k", "k_a", "r_k"))
        vectors = Vectors(kappa, alpha, rho, f"{at}time_mix_ln.weight", f"{at}time_mix_ln.bias")
        seen = g.wkv(r, w, k, v, a, gate, vectors, self.size, self.eps, layer=i)
        return self.output.graph(g, seen, at, add_to), first


class ChannelMix(NamedTuple):
    """An MLP of `m` values in between, squares of what is positive, of a row mixed with the one before."""

    n: int
    m: int

    @property
    def key(self) -> Matrix:
        """To the values in between."""
        return Matrix("channel_mix_key", "ffn.key", self.m, self.n)

    @property
    def value(self) -> Matrix:
        """From these."""
        return Matrix("channel_mix_value", "ffn.value", self.n, self.m)

    def tensors(self, t: Tensors) -> None:
        """The weights of the mixture, the matrices."""
        t.vector("channel_mix_lerp_k.weight", "ffn.x_k", self.n)
        self.key.tensors(t)
        self.value.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        x = g.lerp(h, g.previous(h, i, "fed"), f"{at}channel_mix_lerp_k.weight")
        return self.value.graph(g, g.activation(self.key.graph(g, x, at), "relu2"), at, add_to)


class FirstValues(NamedTuple):
    """Around layers of TimeMix: the values of the first one reach all others."""

    @property
    def carries(self) -> bool:
        """Whether layers need more than what the one before them gives."""
        return True

    def tensors(self, t: Tensors) -> None:
        """None."""

    def layer_tensors(self, t: Tensors) -> None:
        """None."""

    def through(self, g: Graph, x: Value, layers: Iterable[tuple[int, Layer]]) -> Value:
        """The embedding's rows x after the numbered layers."""
        first: Value | None = None
        for i, (norms, mixer, ffn) in layers:
            assert isinstance(norms, PreNorms) and isinstance(mixer, TimeMix)
            at = layer_name(i)
            x, first = mixer.mixed(g, norms.before_mixer.graph(g, x, at), i, x, first)
            x = ffn.graph(g, norms.before_ffn.graph(g, x, at), i, x)
        return x
