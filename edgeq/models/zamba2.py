"""Zamba2: layers of Mamba-2; before some of them a block of attention and MLP, one of a few that all share, reads the
residual stream beside the embedding, each time with small matrices of that layer added (arXiv:2411.15242)."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, checked, read_dimensions
from edgeq.models.feed_forward import FeedForward, GatedMLP, fused_gated
from edgeq.models.layers import Layer, Nothing, Once
from edgeq.models.mamba_mixer import Mamba2, MambaShape, checked_shape
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.mixers import Attention, Mixer, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import NO_ROPE, Graph, Value

MAMBA, HYBRID = ("mamba", "linear_attention"), "hybrid"  # kinds of layers, the first by its older and newer name
# Where nothing is said
KINDS = ["mamba", *(["mamba"] * 5 + [HYBRID]) * 7, *["mamba"] * 4, HYBRID, *["mamba"] * 3, HYBRID, *["mamba"] * 2]
LONG = 16384  # positions where a longer context is asked for
EPS = 1e-5  # of the norms within Mamba layers, whatever the configuration says


class Adapter(NamedTuple):
    """What a layer adds to a product of the block's: b (a x)."""

    a: Matrix
    b: Matrix

    def tensors(self, t: Tensors) -> None:
        """Both matrices."""
        self.a.tensors(t)
        self.b.tensors(t)

    def graph(self, g: Graph, x: Value, at: str, add_to: Value) -> Value:
        """Of x, added to `add_to`."""
        return self.b.graph(g, self.a.graph(g, x, at), at, add_to)


class Block(NamedTuple):
    """Attention over the residual stream beside the embedding, and an MLP on its result, which several layers share.
    Their names begin with `name` in the file, with `source` in the checkpoint."""

    name: str
    source: str
    before: RMSNorm
    attention: Attention
    between: RMSNorm
    mlp: GatedMLP

    def tensors(self, t: Tensors) -> None:
        """All of it."""
        own = t.elsewhere(self.name, self.source)
        for part in (self.before, self.attention, self.between, self.mlp):
            part.tensors(own)


class Hybrid(NamedTuple):
    """In the mixer's place: what `block` gives goes through `linear` and, added to x, is what `mamba` reads, normed.
    `adapters` are of queries, keys and values, where there are such, then of the MLP's gate and up."""

    number: int
    embedding: Embedding
    block: Block
    adapters: tuple[Adapter, ...]
    linear: Matrix
    before: RMSNorm
    mamba: Mamba2

    @property
    def one_input(self) -> bool:
        """Layers cannot be run one by one: they need the embedding."""
        return False

    def tensors(self, t: Tensors) -> None:
        """The shared block's and the layer's own."""
        self.block.tensors(t)
        for adapter in self.adapters:
            adapter.tensors(t.elsewhere(layer_name(self.number), self.block.source))
        for part in (self.linear, self.before, self.mamba):
            part.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, which is x itself, added to it."""
        at, block = layer_name(i), self.block
        read = block.before.graph(g, g.join(h, self.embedding.graph(g)), block.name)
        x = self.linear.graph(g, self._fed(g, self._attended(g, read, i), at), at)
        return self.mamba.graph(g, self.before.graph(g, g.add(x, h), at), i, add_to)

    def _attended(self, g: Graph, h: Value, i: int) -> Value:
        """What attention gives."""
        attention, name = self.block.attention, self.block.name
        qkv = [matrix.graph(g, h, name) for matrix in attention.qkv]
        for number, adapter in enumerate(self.adapters[:-2]):
            qkv[number] = adapter.graph(g, h, layer_name(i), qkv[number])
        q, k, v = qkv
        seen = g.attention(q, k, v, attention.heads, attention.rope, layer=i)
        return attention.output.graph(g, seen, name)

    def _fed(self, g: Graph, x: Value, at: str) -> Value:
        """What the MLP makes of that."""
        mlp, name = self.block.mlp, self.block.name
        h = self.block.between.graph(g, x, name)
        gate, up = mlp.gate.graph(g, h, name), mlp.up.graph(g, h, name)
        gate, up = (a.graph(g, h, at, y) for a, y in zip(self.adapters[-2:], (gate, up), strict=True))
        x = g.silu_mul(gate, up) if mlp.activation == "silu" else g.activation(gate, mlp.activation, up)
        return mlp.down.graph(g, x, name)


class Bare(NamedTuple):
    """A layer of one part, the mixer's place, which reads x as it is."""

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        """Layer i on x."""
        return mixer.graph(g, x, i, x)


def compose(config: Config) -> Model:
    """1.2B, 2.7B and 7B. Where the embedding is not the head, transformers shares no block either."""
    config.refuse(tie_word_embeddings=True)
    n = config.integer("hidden_size", most=1 << 28)
    if config.flag("use_long_context"):
        config = config.changed(max_position_embeddings=LONG)
    if config.get("intermediate_size") is None:
        config = config.changed(intermediate_size=4 * n)
    size = read_dimensions(config.usually(max_position_embeddings=4096))
    if n % 16:
        raise config.unsupported(f"hidden_size is {n}, a multiple of 16 is needed")
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    word, last = embedding_and_head(size, True)
    embedding, attention = Embedding(word), read_attention(config, n)
    kinds = config.layer_types(size.num_hidden_layers, (*MAMBA, HYBRID), config.get("layers_block_type") or KINDS)
    mamba = read_mamba(config, n)
    layers = [Layer(Once(norm("attn_norm", "input_layernorm")), mamba, Nothing())] * len(kinds)
    where = [i for i, kind in enumerate(kinds) if kind == HYBRID]
    count = config.integer("num_mem_blocks", 1)
    for k, i in enumerate(where):
        block = read_block(config, size, attention, k % count, where[k % count])
        before = norm("attn_norm", "mamba_decoder.input_layernorm")
        within = mamba._replace(source="mamba_decoder.mamba")
        adapters = read_adapters(config, size, attention, k)
        linear = Matrix("block_proj", "linear", n, n)
        layers[i] = Layer(Bare(), Hybrid(i, embedding, block, adapters, linear, before, within), Nothing())
    return Model("zamba2", size, attention, embedding, layers, Head(norm("output_norm", "model.final_layernorm"), last))


def read_attention(config: Config, n: int) -> Attention:
    """That of all blocks, of twice as many values. Scores are scaled as if heads had half as many."""
    count = config.integer("num_attention_heads", 32)
    kv = count if config.get("num_key_value_heads") is None else config.integer("num_key_value_heads")
    heads = checked(config, count, kv, 2 * n // count)
    heads = replace(heads, scale=(heads.head_dim / 2) ** -0.5)
    rotation = whole_rope(config, heads.head_dim) if config.flag("use_mem_rope") else NO_ROPE
    return Attention(separate(2 * n, heads), output(n, heads), heads, rotation)


def read_mamba(config: Config, n: int) -> Mamba2:
    """That of all layers. Steps are at least `time_step_min` long."""
    heads, inner = config.integer("n_mamba_heads", 8), int(config.number("mamba_expand", 2) * n)
    groups, values = config.integer("mamba_ngroups", 1), config.integer("mamba_d_state", 64, most=65_536)
    shape = MambaShape(heads, inner // heads, groups, values, config.integer("mamba_d_conv", 4, most=64))
    bias, least = config.flag("add_bias_linear"), config.number("time_step_min", 0.001)
    return Mamba2(n, checked_shape(config, shape, inner), "mamba", bias, True, bias, EPS, least=least)


def read_block(config: Config, size: Dimensions, attention: Attention, number: int, first: int) -> Block:
    """The block of this number, which layer `first` is the first to use."""
    n, eps, bias = size.hidden_size, config.number("rms_norm_eps", 1e-5), config.flag("add_bias_linear")
    kind = config.activation("hidden_act", "gelu")
    mlp = fused_gated(n, size.intermediate_size, kind, "feed_forward.gate_up_proj", "feed_forward.down_proj", bias=bias)
    return Block(
        f"shared.{number}.",
        f"model.layers.{first}.shared_transformer.",
        RMSNorm("attn_norm", "input_layernorm", 2 * n, eps),
        attention,
        RMSNorm("ffn_norm", "pre_ff_layernorm", n, eps),
        mlp,
    )


def read_adapters(config: Config, size: Dimensions, attention: Attention, k: int) -> tuple[Adapter, ...]:
    """Those of the k-th layer with a block. The MLP's have one first matrix for gate and up."""
    rank, n, m = config.integer("adapter_rank", 128), size.hidden_size, size.intermediate_size
    found = []
    if config.flag("use_shared_attention_adapter"):
        for part, matrix in zip("qkv", attention.qkv, strict=True):
            source = f"self_attn.linear_{part}_adapter_list.{k}"
            a = Matrix(f"attn_{part}_a", f"{source}.0", rank, 2 * n)
            found.append(Adapter(a, Matrix(f"attn_{part}_b", f"{source}.1", matrix.rows, rank)))
    source = f"feed_forward.gate_up_proj_adapter_list.{k}"
    a = Matrix("ffn_a", f"{source}.0", rank, n)
    for j, part in enumerate(("gate", "up")):
        b = Matrix(f"ffn_{part}_b", f"{source}.1", m, rank, fused=Fused(2 * m, first=j * m))
        found.append(Adapter(a, b))
    return tuple(found)
