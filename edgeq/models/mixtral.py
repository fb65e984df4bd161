"""Mixtral: Mistral with a mixture of experts in every layer (arXiv:2401.04088)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import everywhere


def compose(config: Config) -> Model:
    """The experts' weights are normalized over the chosen ones."""
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    window = everywhere(config)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    count, top_k = read_experts(config, "num_local_experts", 8, 2)
    matrices = separate_experts(
        n, size.intermediate_size, count, "block_sparse_moe.experts.{{}}.{}", ("w1", "w3", "w2")
    )
    experts = MixtureOfExperts(router(n, count, "block_sparse_moe.gate"), matrices, count, top_k, normalized=True)
    layers = [Layer(pre_norms(norm), attention.over(window), experts)] * size.num_hidden_layers
    return decoder("mixtral", config, size, attention, layers, norm, settings=experts.settings("num_local_experts"))
