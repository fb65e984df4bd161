"""Qwen1.5-MoE and Qwen2's mixtures of experts: beside the chosen experts a gated one for every token
(arXiv:2407.10671)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import SharedExpert, gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.qwen3_moe import expert_settings, read_mixture, sparse
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import Windows, by_layer


def compose(config: Config) -> Model:
    """q, k and v have a bias unless the configuration says otherwise."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads, bias = read_heads(config, n), config.flag("qkv_bias", True)
    windows = read_windows(config, size.num_hidden_layers)
    attention = Attention(separate(n, heads, bias), output(n, heads), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    mixture, wide = read_mixture(config, n, 60), config.integer("shared_expert_intermediate_size", 5632)
    experts = SharedExpert(
        mixture,
        gated(n, wide, "silu", source="mlp.shared_expert.{}", suffix="_shexp"),
        Matrix("ffn_gate_inp_shexp", "mlp.shared_expert_gate", 1, n),
    )
    norms = pre_norms(norm)
    layers = [
        Layer(norms, attention.over(window), experts if here else mlp)
        for window, here in zip(windows, sparse(config, size.num_hidden_layers), strict=True)
    ]
    return decoder("qwen2_moe", config, size, attention, layers, norm, settings=expert_settings(config, mixture))


def read_windows(config: Config, layers: int) -> Windows:
    """Off unless `use_sliding_window`; then every other layer below `max_window_layers` is local."""
    if not config.flag("use_sliding_window"):
        return [None] * layers
    most = config.integer("max_window_layers", 28)
    return by_layer(config, [i % 2 == 0 and i < most for i in range(layers)])
