"""Granite with local layers, a sink per head, and in each layer a rotary embedding of its own, or none."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import Dimensions, read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import by_layer
from edgeq.ops import NO_ROPE, Rope


def compose(config: Config) -> Model:
    """The first of every four layers is global."""
    size = read_dimensions(config)
    n, m, added = size.hidden_size, size.intermediate_size, read_added(config)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms, mixers = pre_norms(norm, mixed=added, fed=added), read_mixers(config, size)
    layers = [Layer(norms, mixer, mlp) for mixer in mixers]
    usual = next((mixer for mixer in mixers if mixer.rope.inverse_frequencies), mixers[0])
    return granite("granite_swa", config, size, usual.over(None), layers, norm, tied=True)


def read_mixers(config: Config, size: Dimensions) -> list[Attention]:
    """Those of all layers."""
    count = size.num_hidden_layers
    windows = by_layer(config.usually(sliding_window=128), [i % 4 != 0 for i in range(count)])
    attention = read_attention(config, size.hidden_size)._replace(sinks="self_attn.sinks")
    rotations = read_ropes(config, count, attention)
    return [attention._replace(rope=turn).over(window) for turn, window in zip(rotations, windows, strict=True)]


def read_ropes(config: Config, layers: int, attention: Attention) -> list[Rope]:
    """`layer_rope_theta` has a theta for each layer; 0 stands for none."""
    thetas = config.get("layer_rope_theta")
    if thetas is None:
        return [attention.rope] * layers
    if not isinstance(thetas, list) or len(thetas) < layers or not all(isinstance(t, int | float) for t in thetas):
        raise config.malformed(f"layer_rope_theta is {shown(thetas)}, a list of {layers} numbers is needed")
    found = {theta: _with_theta(config, theta, attention.heads.head_dim) for theta in {*thetas[:layers]}}
    return [found[theta] for theta in thetas[:layers]]


def _with_theta(config: Config, theta: float, head_dim: int) -> Rope:
    if not theta:
        return NO_ROPE
    parameters = config.get("rope_parameters") or {}
    return rope(config.changed(rope_theta=theta, rope_parameters={**parameters, "rope_theta": theta}), head_dim)
