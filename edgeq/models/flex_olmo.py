"""FlexOlmo: OLMoE that norms what attention and experts give instead of what they get (arXiv:2507.07024)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.layers import Layer, post_norms
from edgeq.models.mixers import Attention, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope

THETA = 500000.0


def compose(config: Config) -> Model:
    """Queries and keys are normed over all heads at once."""
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, whole_norms(heads, eps))
    count, top_k = read_experts(config, "num_experts", 7, 5)
    matrices = separate_experts(n, size.intermediate_size, count)
    experts = MixtureOfExperts(router(n, count), matrices, count, top_k, config.flag("norm_topk_prob"))
    layers = [Layer(post_norms(norm), attention, experts)] * size.num_hidden_layers
    return decoder("flex_olmo", config, size, attention, layers, norm)
