"""Qwen3's mixtures of experts: Qwen3 with experts in the place of most MLPs (arXiv:2505.09388)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, gated, read_experts, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """All layers are local, or none."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    eps = config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n, head_dim=128), config.flag("attention_bias")
    local = config.flag("use_sliding_window") and config.get("sliding_window", 4096) is not None
    window = config.integer("sliding_window", 4096) if local else None
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim),
        head_norms(heads, eps),
    )
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    experts = read_mixture(config, n)
    norms = pre_norms(norm)
    layers = [
        Layer(norms, attention.over(window), experts if here else mlp)
        for here in sparse(config, size.num_hidden_layers)
    ]
    return decoder("qwen3_moe", config, size, attention, layers, norm, settings=expert_settings(config, experts))


def read_mixture(config: Config, n: int, count: int = 128) -> MixtureOfExperts:
    """The experts of a layer whose residual stream has `n` values, `count` unless the configuration says otherwise."""
    count, top_k = read_experts(config, "num_experts", count, 8)
    matrices = separate_experts(n, config.integer("moe_intermediate_size"), count)
    return MixtureOfExperts(router(n, count), matrices, count, top_k, config.flag("norm_topk_prob"))


def expert_settings(config: Config, experts: MixtureOfExperts) -> dict[str, float]:
    """What GGUF says of them."""
    return {"moe_intermediate_size": config.integer("moe_intermediate_size"), **experts.settings("num_experts")}


def sparse(config: Config, layers: int) -> list[bool]:
    """Which layers have experts."""
    step, dense = config.integer("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise config.malformed(f"mlp_only_layers is {shown(dense)}, a list of layers is needed")
    return [i not in dense and (i + 1) % step == 0 for i in range(layers)]
