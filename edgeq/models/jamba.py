"""Jamba: layers of Mamba with norms within, or of attention without rotary embedding, each with an MLP or experts
(arXiv:2403.19887)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import NAMES, ExpertMatrix, FeedForward, MixtureOfExperts, gated, read_experts, router
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, Mixer, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.selective_mixer import Mamba, read_scan
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """One layer of so many is of attention, one of so many has experts."""
    size = read_dimensions(config.usually(max_position_embeddings=262_144))
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-6)
    heads = read_heads(config.usually(num_key_value_heads=8), n)
    attention = Attention(separate(n, heads), output(n, heads), heads, NO_ROPE)
    mixers: tuple[Mixer, Mixer] = read_mixer(config, n, eps), attention
    mlp, experts = gated(n, m, "silu", source="feed_forward.{}"), read_mixture(config, n, m)
    ffns: tuple[FeedForward, FeedForward] = mlp, experts or mlp
    norm = partial(RMSNorm, width=n, eps=eps)
    norms = PreNorms(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "pre_ff_layernorm"))
    attends = every(config, "attn_layer", 8, 4, size.num_hidden_layers)
    routes = every(config, "expert_layer", 2, 1, size.num_hidden_layers)
    layers = [Layer(norms, mixers[one], ffns[other]) for one, other in zip(attends, routes, strict=True)]
    settings = experts.settings("num_experts") if experts else {"num_experts": 1, "num_experts_per_tok": 1}
    return decoder("jamba", config, size, attention, layers, norm, last="model.final_layernorm", settings=settings)


def read_mixer(config: Config, n: int, eps: float) -> Mamba:
    """That of all such layers."""
    shape = read_scan(config, n, "mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_expand")
    widths = {"dt": shape.rank, "b": shape.size, "c": shape.size}
    dt, b, c = (RMSNorm(f"ssm_{name}_norm", f"mamba.{name}_layernorm", width, eps) for name, width in widths.items())
    bias, conv_bias = config.flag("mamba_proj_bias"), config.flag("mamba_conv_bias", True)
    return Mamba(n, shape, "mamba", bias, conv_bias, (dt, b, c))


def read_mixture(config: Config, n: int, m: int) -> MixtureOfExperts | None:
    """The experts, whose weights are those of the softmax over all; None where one is all there are."""
    counts = [config.get(key) for key in ("num_experts", "num_local_experts")]
    if next((count for count in counts if count is not None), 0) == 1:
        return None
    count, top_k = read_experts(config, "num_experts", 16, 2)
    gate, up, down = (f"feed_forward.experts.{{}}.{name}" for name in NAMES)
    both, last = ("feed_forward.experts.gate_up_proj",), ("feed_forward.experts.down_proj",)
    matrices = (
        ExpertMatrix("ffn_gate_exps", count, m, n, Fused(2 * m), gate, both),
        ExpertMatrix("ffn_up_exps", count, m, n, Fused(2 * m, first=m), up, both),
        ExpertMatrix("ffn_down_exps", count, n, m, Fused(n), down, last),
    )
    source = "feed_forward.router"
    return MixtureOfExperts(router(n, count, source, source), matrices, count, top_k, normalized=False)


def every(config: Config, what: str, period: int, offset: int, layers: int) -> list[bool]:
    """Which layers are what one of so many is; CheckpointError for an offset that is not within the period."""
    period, given = config.integer(f"{what}_period", period), config.get(f"{what}_offset", offset)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < period:
        raise config.malformed(f"{what}_offset is {shown(given)}, an integer from 0 to {period - 1} is needed")
    return [i % period == given for i in range(layers)]
