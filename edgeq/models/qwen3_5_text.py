"""Qwen3.5: three of four layers are gated delta nets, the others attention with a gated output, whose heads are rotated
in part."""

from collections.abc import Sequence
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.delta_mixer import FourProjections, GatedDeltaNet, Projected, read_delta_shape
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, head_norms, output, query_width, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.tensors import Fused

PARTIAL = 0.25  # of each head is rotated


def compose(config: Config) -> Model:
    """With an MLP in each layer."""
    size = read_dimensions(config)
    mlp = gated(size.hidden_size, size.intermediate_size, "silu")
    return hybrid("qwen3_5_text", config, size, [mlp] * size.num_hidden_layers, FourProjections())


def hybrid(
    name: str,
    config: Config,
    size: Dimensions,
    ffns: Sequence[FeedForward],
    projected: Projected,
    settings: dict[str, float] | None = None,
) -> Model:
    """Layers of both kinds around these feed-forwards; the weights of norms are stored less 1."""
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-6)
    config.refuse(attn_output_gate=True)
    norm = partial(RMSNorm, width=n, eps=eps, add=1.0)
    attention = read_gated_attention(config, n, eps)
    shape = read_delta_shape(config)
    net = GatedDeltaNet(n, shape, projected, eps)
    layers = [
        Layer(pre_norms(norm), net if kind == "linear_attention" else attention, ffn)
        for kind, ffn in zip(read_kinds(config, size.num_hidden_layers), ffns, strict=True)
    ]
    return decoder(name, config, size, attention, layers, norm, settings={**(settings or {}), **shape.settings()})


def read_gated_attention(config: Config, n: int, eps: float) -> Attention:
    """Of each query head the checkpoint has the query first, then its gate."""
    heads, bias = read_heads(config, n, head_dim=256), config.flag("attention_bias")
    _, k, v = separate(n, heads, bias)
    rows, step = query_width(heads), 2 * heads.head_dim
    q, gate = (
        Matrix(name, "self_attn.q_proj", rows, n, bias, Fused(2 * rows, first, heads.head_dim, step))
        for name, first in (("attn_q", 0), ("attn_gate", heads.head_dim))
    )
    return Attention(
        (q, k, v),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim, PARTIAL),
        head_norms(heads, eps, add=1.0),
        gate=gate,
    )


def read_kinds(config: Config, layers: int) -> list[str]:
    """The kind of each layer; where nothing says it, every so many are attention."""
    every = config.integer("full_attention_interval", 4)
    usual = [("linear_attention", "full_attention")[(i + 1) % every == 0] for i in range(layers)]
    kinds = config.get("layer_types")
    return config.layer_types(layers, ("linear_attention", "full_attention"), usual if kinds is None else kinds)
