"""Llama 4: three layers of chunks, whose heads are normed after they are rotated, to one that sees all and is not
rotated; experts in some layers or all."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, MixtureOfExperts, SharedMLP, gated, read_experts, router
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import PlainHeadNorm, RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.smollm3 import rotated_layers
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import NO_ROPE, Rope

THETA = 500000.0
# What leaving these out means
USUAL = {
    "intermediate_size_mlp": 16384,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "attention_chunk_size": 8192,
}
SOURCE = "feed_forward.{}"  # of an MLP's matrices
KINDS = ("full_attention", "chunked_attention")


class Llama4Experts(NamedTuple):
    """The experts' matrices: [inputs, outputs] in the checkpoint, gate and up in one."""

    num_experts: int
    n: int
    m: int

    def tensors(self, t: Tensors) -> None:
        """The matrices."""
        n, m = self.n, self.m
        for name, source, rows, columns, fused in (
            ("ffn_gate_exps", "gate_up_proj", m, n, Fused(2 * m)),
            ("ffn_up_exps", "gate_up_proj", m, n, Fused(2 * m, first=m)),
            ("ffn_down_exps", "down_proj", n, m, Fused(n)),
        ):
            source = f"feed_forward.experts.{source}"
            t.stacked(name, source, self.num_experts, rows, columns, fused, transposed=True)


def compose(config: Config) -> Model:
    """Scout, Maverick, and MobileLLM without experts."""
    config = config.usually(**USUAL)
    size = read_dimensions(config)
    norm = partial(RMSNorm, width=size.hidden_size, eps=config.number("rms_norm_eps", 1e-5))
    mixers = read_mixers(config, size.hidden_size, size.num_hidden_layers)
    ffns = read_ffns(config, size.hidden_size, size.num_hidden_layers)
    layers = [Layer(pre_norms(norm), mixer, ffn) for mixer, ffn in zip(mixers, ffns, strict=True)]
    usual = next((mixer for mixer in mixers if mixer.norms), mixers[0])
    settings = {"rope_theta": THETA, "interleave_moe_layer_step": 1}
    experts = next((ffn.experts for ffn in ffns if isinstance(ffn, SharedMLP)), None)
    if isinstance(experts, MixtureOfExperts):
        settings |= experts.settings("num_local_experts")
    return decoder("llama4_text", config, size, usual.over(None), layers, norm, settings=settings)


def read_mixers(config: Config, n: int, layers: int) -> list[Attention]:
    """Those of all layers. A norm without weights is the same before a rotation as after it."""
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    eps = config.number("rms_norm_eps", 1e-5)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, NO_ROPE)
    rotation = replace(whole_rope(config, heads.head_dim, theta=THETA), interleaved=True)
    rotated = attention._replace(rope=rotation)
    if config.flag("use_qk_norm", True):
        if rotation.attention_factor != 1.0:
            raise config.unsupported("a rope scaling that makes heads longer is not supported where these are normed")
        rotated = rotated._replace(norms=(PlainHeadNorm(heads.head_dim, eps), PlainHeadNorm(heads.head_dim, eps)))
    still = attention._replace(rope=read_temperature(config, heads.head_dim))
    turns, windows = rotated_layers(config, layers), read_chunks(config, layers)
    return [(rotated if turn else still).over(window, True) for turn, window in zip(turns, windows, strict=True)]


def read_temperature(config: Config, head_dim: int) -> Rope:
    """Of layers that are not rotated: queries grow with their position."""
    if not config.flag("attn_temperature_tuning", True):
        return NO_ROPE
    growth, span = config.number("attn_scale", 0.1), config.integer("floor_scale", 8192)
    return Rope((0.0,) * (head_dim // 2), query_growth=growth, query_span=span, query_first=1)


def read_chunks(config: Config, layers: int) -> list[int | None]:
    """How many positions the chunks of each layer have, None where it sees all: where nothing is said of layers those
    that are rotated have chunks."""
    size = None if config.get("attention_chunk_size") is None else config.integer("attention_chunk_size")
    chunked = rotated_layers(config, layers)
    if config.get("layer_types") is not None:
        chunked = [kind == "chunked_attention" for kind in config.layer_types(layers, KINDS)]
        if size is None and any(chunked):
            raise config.malformed("attention_chunk_size is null, and there are layers of chunks")
    return [size if here else None for here in chunked]


def read_ffns(config: Config, n: int, layers: int) -> list[FeedForward]:
    """Experts where `moe_layers` says, or in one of so many layers; an MLP in the others."""
    every = config.integer("interleave_moe_layer_step", 1)
    routed: Any = config.get("moe_layers")
    if routed is None:
        routed = range(every - 1, layers, every)
    elif not isinstance(routed, list) or not all(type(i) is int for i in routed):
        raise config.malformed(f"moe_layers is {shown(routed)}, a list of layers is needed")
    mlp = gated(n, config.integer("intermediate_size_mlp"), config.activation("hidden_act", "silu"), source=SOURCE)
    mixture: FeedForward = read_mixture(config, n) if any(i in routed for i in range(layers)) else mlp
    return [mixture if i in routed else mlp for i in range(layers)]


def read_mixture(config: Config, n: int) -> SharedMLP:
    """What an expert reads is multiplied by the sigmoid of its score; beside the experts is an MLP for every token."""
    m, (count, top_k) = config.integer("intermediate_size"), read_experts(config, "num_local_experts", 16, 1)
    gate = router(n, count, "feed_forward.router", "")
    matrices = [Llama4Experts(count, n, m)]
    experts = MixtureOfExperts(gate, matrices, count, top_k, normalized=False, sigmoid=True, weighs_inputs=True)
    return SharedMLP(experts, gated(n, m, "silu", source="feed_forward.shared_expert.{}", suffix="_shexp"))
