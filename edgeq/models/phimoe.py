"""Phi-3.5-MoE: a Llama of LayerNorms and biases with experts that SparseMixer chooses (arXiv:2404.14219)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import rope, rope_parameters, scaling_type
from edgeq.models.windows import everywhere
from edgeq.ops import Rope

THETA = 1000000.0
ORIGINAL = "original_max_position_embeddings"


def compose(config: Config) -> Model:
    """Each token goes to two experts, each of which is weighted among those that come near it."""
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(LayerNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads, bias, window = read_heads(config, n), config.flag("attention_bias"), everywhere(config)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, read_rope(config, heads.head_dim))
    config.refuse(num_experts_per_tok=2)
    count, top_k = read_experts(config, "num_local_experts", 16, 2)
    matrices = separate_experts(
        n, size.intermediate_size, count, "block_sparse_moe.experts.{{}}.{}", ("w1", "w3", "w2")
    )
    chooses = router(n, count, "block_sparse_moe.gate", "mlp.router")
    spread = 2 * config.number("router_jitter_noise", 0.01)
    experts = MixtureOfExperts(chooses, matrices, count, top_k, normalized=False, spread=spread)
    tied, head_bias = config.flag("tie_word_embeddings"), config.flag("lm_head_bias")
    if tied and head_bias:
        raise config.unsupported("lm_head_bias True with tie_word_embeddings True is not supported")
    embedding, head = embedding_and_head(size, tied, bias=head_bias)
    layers = [Layer(pre_norms(norm), attention.over(window), experts)] * size.num_hidden_layers
    return Model("phimoe", size, attention, Embedding(embedding), layers, Head(norm("output_norm", "model.norm"), head))


def read_rope(config: Config, head_dim: int) -> Rope:
    """Sines and cosines are scaled by numbers that the configuration gives, the same for short and long sessions."""
    scaling = rope_parameters(config)
    if scaling_type(scaling) == "default":
        return rope(config, head_dim, theta=THETA)
    given = config.within(scaling)
    short, long = given.number("short_mscale"), given.number("long_mscale")
    if short != long or scaling_type(scaling) != "longrope":
        raise config.unsupported(f"a {scaling_type(scaling)} with scales of {short} and {long} is not supported")
    if ORIGINAL in scaling:  # which counts, wherever else there is another
        config = config.changed(**{ORIGINAL: scaling[ORIGINAL]})
    config = config.changed(rope_parameters={**scaling, "attention_factor": short}, rope_scaling=None)
    return rope(config, head_dim, theta=THETA)
