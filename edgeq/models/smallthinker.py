"""SmallThinker (arXiv:2507.20984): experts with ReLU in all layers, chosen before a layer's attention, so that they may
be fetched meanwhile; layers without rotary embedding, and local ones."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, router, separate_experts
from edgeq.models.layers import Layer, RoutedFirst
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import by_layer
from edgeq.ops import NO_ROPE

THETA = 1000000.0


def compose(config: Config) -> Model:
    """A list for each says which layers are rotated, and which are local."""
    config.refuse(
        hidden_act="relu",
        use_qk_norm=False,
        moe_enable_early_router=True,
        moe_enable_secondary_experts=False,
        moe_shared_primary_experts=0,
    )
    size = read_dimensions(config.changed(intermediate_size=config.integer("moe_ffn_hidden_size", 768)))
    n, count = size.hidden_size, size.num_hidden_layers
    norm, heads = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6)), read_heads(config, n, 128)
    if not all(layout(config, "moe_layer_layout", 1, count)):
        raise config.unsupported("layers without experts are not supported")
    rotation = rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads), output(n, heads), heads, rotation)
    window = config.changed(sliding_window=config.get("sliding_window_size", 4096), layer_types=None)
    windows = by_layer(window, layout(config, "sliding_window_layout", 0, count))
    norms = RoutedFirst(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "post_attention_layernorm"))
    experts = read_mixture(config, n, size.intermediate_size)
    layers = [
        Layer(norms, attention.over(local)._replace(rope=rotation if rotated else NO_ROPE), experts)
        for local, rotated in zip(windows, layout(config, "rope_layout", 1, count), strict=True)
    ]
    settings = {"rope_theta": THETA, "moe_num_primary_experts": 32, "moe_num_active_primary_experts": 4}
    settings["moe_ffn_hidden_size"] = size.intermediate_size
    return decoder("smallthinker", config, size, attention, layers, norm, tied=True, settings=settings)


def layout(config: Config, key: str, usual: int, layers: int) -> list[bool]:
    """Of each layer whether the list `key` has a 1 for it."""
    given = config.get(key)
    if given is None:
        given = [usual] * layers
    if not isinstance(given, list) or len(given) < layers:
        raise config.malformed(f"{key} is {shown(given)}, a list of {layers} is needed")
    return [bool(here) for here in given[:layers]]


def read_mixture(config: Config, n: int, m: int) -> MixtureOfExperts:
    """Of a layer whose residual stream has `n` values; an expert has `m` in between. The softmax is over the chosen,
    sigmoids are normalized over these."""
    count = config.integer("moe_num_primary_experts", 32, most=4096)
    top_k = config.integer("moe_num_active_primary_experts", 4)
    if top_k > count:
        raise config.malformed(f"moe_num_active_primary_experts is {top_k}, there are {count} experts")
    where = "block_sparse_moe"
    matrices = separate_experts(n, m, count, where + ".experts.{{}}.{}", ("gate", "up", "down"))
    sigmoid = not config.flag("moe_primary_router_apply_softmax")
    chooses = router(n, count, f"{where}.primary_router", "")
    return MixtureOfExperts(chooses, matrices, count, top_k, True, activation="relu", sigmoid=sigmoid)
