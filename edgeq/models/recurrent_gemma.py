"""RecurrentGemma (Griffin, arXiv:2402.19427): two layers of a gated recurrence to one of local attention, each with
Gemma's MLP."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

KINDS = ["recurrent", "recurrent", "attention"]  # which take turns
SOURCE = "temporal_block"  # what the names of either begin with
POSITIONS = 8192  # of the training; no configuration says it


class Recurrence(NamedTuple):
    """Of `n` values of the residual stream: one branch through an activation, the other, of `width` values, through a
    convolution of `taps` positions and a recurrence, whose gates are `heads` matrices of their own channels."""

    n: int
    width: int
    heads: int
    taps: int
    activation: str

    @property
    def into(self) -> tuple[Matrix, Matrix]:
        """To both branches, the activated one first."""
        return (
            Matrix("rec_gate", f"{SOURCE}.linear_y", self.width, self.n, bias=True),
            Matrix("rec_x", f"{SOURCE}.linear_x", self.width, self.n, bias=True),
        )

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("rec_out", f"{SOURCE}.linear_out", self.n, self.width, bias=True)

    def tensors(self, t: Tensors) -> None:
        """The projections, the convolution, the gates, the rates."""
        for matrix in (*self.into, self.output):
            matrix.tensors(t)
        t.depthwise("rec_conv1d", f"{SOURCE}.conv_1d", self.width, self.taps, bias=True)
        for name, source in (("rec_take", "input_gate"), ("rec_forget", "recurrent_gate")):
            source = f"{SOURCE}.rg_lru.{source}"
            t.matrices_of_heads(name, f"{source}_weight", self.heads, self.width // self.heads)
            t.flat(f"{name}.bias", f"{source}_bias", (self.heads, self.width // self.heads))
        t.vector("rec_rate.weight", f"{SOURCE}.rg_lru.recurrent_param", self.width)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        gate, x = (matrix.graph(g, h, at) for matrix in self.into)
        x = g.causal_conv(x, f"{at}rec_conv1d.weight", f"{at}rec_conv1d.bias", layer=i, activated=False)
        each = self.width // self.heads
        take, forget = (g.head_linear(x, f"{at}rec_{part}.weight", self.heads, each) for part in ("take", "forget"))
        biases = f"{at}rec_take.bias", f"{at}rec_forget.bias"
        x = g.gated_recurrence(x, take, forget, *biases, f"{at}rec_rate.weight", layer=i)
        return self.output.graph(g, g.activation(gate, self.activation, x), at, add_to)


def compose(config: Config) -> Model:
    """2B and 9B. The MLP is half as wide as is said; embeddings are scaled as bfloat16 has the factor."""
    size = read_dimensions(config.usually(max_position_embeddings=POSITIONS))
    n, layers = size.hidden_size, size.num_hidden_layers
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6), add=1.0)
    kind = config.activation("hidden_activation", "gelu_pytorch_tanh")
    mlp = gated(n, size.intermediate_size // 2, kind, bias=True, source="mlp_block.{}")
    norms = PreNorms(norm("attn_norm", "temporal_pre_norm"), norm("ffn_norm", "channel_pre_norm"))
    attention, recurrence = read_attention(config, n), read_recurrence(config, size, kind)
    kinds = read_kinds(config, layers)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    return Model(
        "recurrent_gemma",
        size,
        attention,
        Embedding(embedding, factor=as_bfloat16(n**0.5)),
        [Layer(norms, attention if each == "attention" else recurrence, mlp) for each in kinds],
        Head(norm("output_norm", "model.final_norm"), head, cap=config.number("logits_soft_cap", 30.0)),
    )


def read_attention(config: Config, n: int) -> Attention:
    """That of all such layers, over a window."""
    heads, bias = read_heads(config.changed(head_dim=None), n), config.flag("attention_bias")
    key = "attention_window_size"
    window = config.integer(key if config.get(key) is not None else "sliding_window", 2048)
    qkv, out = separate(n, heads, bias, f"{SOURCE}.{{}}_proj"), output(n, heads, True, f"{SOURCE}.o_proj")
    return Attention(qkv, out, heads, rope(config, heads.head_dim, partial=0.5)).over(window)


def read_recurrence(config: Config, size: Dimensions, activation: str) -> Recurrence:
    """That of all such layers. CheckpointError for channels that heads cannot share, UnsupportedError for heads whose
    size is no multiple of 16."""
    n, heads = size.hidden_size, config.integer("num_attention_heads", 10)
    width = n if config.get("lru_width") is None else config.integer("lru_width", most=1 << 28)
    if width % heads:
        raise config.malformed(f"lru_width is {width}, which {heads} heads cannot share evenly")
    if width // heads % 16:
        raise config.unsupported(f"a head has {width // heads} recurrent channels, a multiple of 16 is needed")
    taps = config.integer("conv1d_width", 4, most=64)
    if taps < 2:
        raise config.unsupported("the convolution has 1 position, at least 2 are needed")
    return Recurrence(n, width, heads, taps, activation)


def read_kinds(config: Config, layers: int) -> list[str]:
    """Of each layer, those in the list `block_types` taking turns."""
    given: Any = config.get("block_types")
    given = KINDS if given is None else given
    if not isinstance(given, list) or not given or not all(kind in KINDS for kind in given):
        raise config.malformed(f"block_types is {shown(given)}, a list of recurrent and attention is needed")
    return [given[i % len(given)] for i in range(layers)]


def as_bfloat16(x: float) -> float:
    """Rounded to nearest, ties to even."""
    bits = int(np.float32(x).view(np.uint32))
    bits += 0x7FFF + (bits >> 16 & 1)
    return float(np.uint32(bits & 0xFFFF0000).view(np.float32))
