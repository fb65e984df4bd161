"""SmolLM3: Llama that leaves out the rotary embedding in every fourth layer (arXiv:2501.18795)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import Windows, by_layer
from edgeq.ops import NO_ROPE

THETA = 2000000.0


def compose(config: Config) -> Model:
    """Layers are rotated or not, local or not."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    rotated = rotated_layers(config, size.num_hidden_layers)
    windows = read_windows(config, rotated)
    rotation = rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms = pre_norms(norm)
    layers = [
        Layer(norms, attention._replace(rope=rotation if here else NO_ROPE).over(window), mlp)
        for here, window in zip(rotated, windows, strict=True)
    ]
    return decoder("smollm3", config, size, attention, layers, norm, tied=True, settings={"rope_theta": THETA})


def rotated_layers(config: Config, layers: int) -> list[bool]:
    """False where the configuration's list, named after the others, has a 0."""
    every = config.integer("no_rope_layer_interval", 4)
    rotated = config.get("no_rope_layers") or [(i + 1) % every != 0 for i in range(layers)]
    if not isinstance(rotated, list) or len(rotated) < layers:
        raise config.malformed(f"no_rope_layers is {shown(rotated)}, a list of {layers} is needed")
    return [bool(here) for here in rotated[:layers]]


def read_windows(config: Config, rotated: list[bool]) -> Windows:
    """Off unless `use_sliding_window`; then the layers without rotary embedding are local."""
    if not config.flag("use_sliding_window") or config.get("sliding_window") is None:
        return [None] * len(rotated)
    return by_layer(config, [not here for here in rotated])
