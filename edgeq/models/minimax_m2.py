"""MiniMax-M2: pre-norm, queries and keys normed over all heads, part of each head rotated, experts chosen by sigmoids
with a bias in all layers."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 5000000.0


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    config.refuse(scoring_func="sigmoid", use_qk_norm=True, qk_norm_type="per_layer", shared_intermediate_size=0)
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-6)
    norm, heads = partial(RMSNorm, width=n, eps=eps), read_heads(config.usually(num_key_value_heads=8), n, 128)
    rotation = rope(config, heads.head_dim, rotated_part(config, heads.head_dim), THETA)
    attention = Attention(separate(n, heads), output(n, heads), heads, rotation, whole_norms(heads, eps))
    experts = read_mixture(config, n, size.intermediate_size)
    layers = [Layer(pre_norms(norm), attention, experts)] * size.num_hidden_layers
    return decoder("minimax_m2", config, size, attention, layers, norm, settings={"rope_theta": THETA})


def rotated_part(config: Config, head_dim: int) -> float:
    """Of each head, as `rotary_dim` says; a partial_rotary_factor counts before it."""
    return config.integer("rotary_dim", head_dim, most=head_dim) / head_dim


def read_mixture(config: Config, n: int, m: int) -> MixtureOfExperts:
    """Of a layer whose residual stream has `n` values; an expert has `m` in between."""
    count, top_k = read_experts(config, "num_local_experts", 256, 8)
    where = "block_sparse_moe"
    matrices = separate_experts(n, m, count, where + ".experts.{{}}.{}", ("w1", "w3", "w2"))
    gate, bias = router(n, count, f"{where}.gate"), f"{where}.e_score_correction_bias"
    also = "mlp.e_score_correction_bias"  # in memory
    return MixtureOfExperts(gate, matrices, count, top_k, True, bias=bias, bias_instead=also, sigmoid=True)
