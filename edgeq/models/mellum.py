"""Mellum 2: Qwen3's mixtures of experts with local layers, which have a rotary embedding of their own."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.qwen3_moe import expert_settings, read_mixture
from edgeq.models.rope_scaling import local_rope, rope
from edgeq.models.windows import by_layer

THETA, LOCAL_THETA = 500000.0, 10000.0


def compose(config: Config) -> Model:
    """`layer_types` says which layers are local, `mlp_layer_types` which are no mixtures."""
    config = config.usually(sliding_window=1024, norm_topk_prob=True, moe_intermediate_size=896)
    size = read_dimensions(config)
    n, m, count = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    eps = config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n, head_dim=128), config.flag("attention_bias")
    local, rotation = local_rope(config, heads.head_dim, LOCAL_THETA), rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, head_norms(heads, eps))
    mlp, experts = gated(n, m, config.activation("hidden_act", "silu")), read_mixture(config, n, 64)
    windows = by_layer(config, [False] * count)
    given = config.get("mlp_layer_types")
    kinds = config.layer_types(count, ("dense", "sparse"), ["sparse"] * count if given is None else given)
    layers = [
        Layer(
            pre_norms(norm),
            attention._replace(rope=local if window else rotation).over(window),
            experts if kind == "sparse" else mlp,
        )
        for window, kind in zip(windows, kinds, strict=True)
    ]
    return decoder(
        "mellum",
        config,
        size,
        attention,
        layers,
        norm,
        settings={"rope_theta": THETA, **expert_settings(config, experts)},
    )
