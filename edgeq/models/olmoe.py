"""OLMoE: Llama with normed queries and keys and a mixture of experts in every layer (arXiv:2409.02060)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Queries and keys are normed over all heads at once. No released model clips q, k and v."""
    config.refuse(clip_qkv=None)
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim),
        whole_norms(heads, eps),
    )
    count, top_k = read_experts(config, "num_experts", 64, 8)
    matrices = separate_experts(n, size.intermediate_size, count)
    experts = MixtureOfExperts(router(n, count), matrices, count, top_k, config.flag("norm_topk_prob"))
    layers = [Layer(pre_norms(norm), attention, experts)] * size.num_hidden_layers
    return decoder("olmoe", config, size, attention, layers, norm, settings=experts.settings("num_experts"))
