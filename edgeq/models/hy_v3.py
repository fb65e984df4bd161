"""Hunyuan 3: Llama with normed heads; after the first layers experts that sigmoids choose, beside one for every
token."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import SharedMLP, gated, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.sigmoid_mixture import expert_count, read_router

THETA = 11158840.0
# What leaving these out means
USUAL = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "moe_intermediate_size": 1536,
    "num_experts": 192,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "router_scaling_factor": 2.826,
}


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    config.refuse(hidden_act="silu")
    if config.get("num_local_experts") is None:
        config = config.usually(num_experts=USUAL["num_experts"])
    config = config.usually(**{key: value for key, value in USUAL.items() if key != "num_experts"})
    size = read_dimensions(config)
    n, eps, bias = size.hidden_size, config.number("rms_norm_eps", 1e-5), config.flag("mlp_bias")
    norm, heads = partial(RMSNorm, width=n, eps=eps), read_heads(config, n)
    also = config.flag("attention_bias")
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, also), output(n, heads, also), heads, rotation, head_norms(heads, eps))
    mlp, mixture = gated(n, size.intermediate_size, "silu", bias), read_mixture(config, n, bias)
    kinds = config.get("mlp_layer_types") or ["dense", *["sparse"] * (size.num_hidden_layers - 1)]
    kinds = config.layer_types(size.num_hidden_layers, ("dense", "sparse"), kinds)
    layers = [Layer(pre_norms(norm), attention, mlp if kind == "dense" else mixture) for kind in kinds]
    return decoder("hy_v3", config, size, attention, layers, norm, settings={"rope_theta": THETA})


def read_mixture(config: Config, n: int, bias: bool) -> SharedMLP:
    """Weights of the chosen are normalized and scaled. The checkpoint's names are its own."""
    m, factor = config.integer("moe_intermediate_size"), config.number("router_scaling_factor")
    scaled = config.changed(norm_topk_prob=True, routed_scaling_factor=factor, n_group=1, topk_group=1)
    experts = read_router(scaled, n, separate_experts(n, m, expert_count(config)), source="mlp.router.gate")
    beside = m * config.integer("num_shared_experts")
    shared = gated(n, beside, "silu", bias, "mlp.shared_mlp.{}", suffix="_shexp")
    return SharedMLP(experts._replace(bias="mlp.expert_bias"), shared)
