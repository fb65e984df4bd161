"""DeepSeek-V2 (arXiv:2405.04434): latent attention; after the first layers experts, which a softmax chooses, beside
those of every token."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import FeedForward, MixtureOfExperts, gated, router, separate_experts
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.sigmoid_mixture import COUNTS, dense_layers, with_shared


def compose(config: Config) -> Model:
    """Of all experts the best are chosen: the largest model, which chooses groups first, is refused."""
    config.refuse(hidden_act="silu", mlp_bias=False)
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    attention = read_latent_attention(config.usually(q_lora_rank=1536, **USUAL), n, interleaved=True)
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(config, n)
    dense = dense_layers(config, "first_k_dense_replace", 0, size.num_hidden_layers)
    layers = [Layer(pre_norms(norm), attention, mlp if here else experts) for here in dense]
    return decoder("deepseek_v2", config, size, attention, layers, norm)


USUAL = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def read_mixture(config: Config, n: int) -> FeedForward:
    """Of a layer whose residual stream has `n` values."""
    config.refuse(topk_method="greedy", norm_topk_prob=False)
    key = next((name for name in COUNTS if config.get(name) is not None), COUNTS[0])
    count, top_k = config.integer(key, 64, most=4096), config.integer("num_experts_per_tok")
    if top_k > count:
        raise config.malformed(f"num_experts_per_tok is {top_k}, there are {count} experts")
    m = config.integer("moe_intermediate_size", 1407)
    matrices, factor = separate_experts(n, m, count), config.number("routed_scaling_factor", 1.0)
    experts = MixtureOfExperts(router(n, count), matrices, count, top_k, normalized=False, factor=factor)
    return with_shared(config, n, m, experts, 2)
