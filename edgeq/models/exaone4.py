"""EXAONE 4: norms after attention and MLP alone, normed heads, and in models with local layers global ones without a
rotary embedding (arXiv:2507.11407)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, post_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.windows import Windows, by_layer
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """1.2B has no local layers, and rotates in all."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    attention, mixers = read_mixers(config, n, eps, size.num_hidden_layers)
    mlp, norms = gated(n, m, config.activation("hidden_act", "silu")), post_norms(norm)
    layers = [Layer(norms, mixer, mlp) for mixer in mixers]
    return decoder("exaone4", config, size, attention, layers, norm)


def read_mixers(config: Config, n: int, eps: float, layers: int) -> tuple[Attention, list[Attention]]:
    """Attention as most layers have it, and that of each; `eps` is that of the norms of heads."""
    heads = read_heads(config, n)
    rotation = whole_rope(config, heads.head_dim)
    attention = Attention(separate(n, heads), output(n, heads), heads, rotation, head_norms(heads, eps))
    everywhere = config.get("sliding_window", 4096) is None
    return attention, [
        attention.over(window)._replace(rope=rotation if window or everywhere else NO_ROPE)
        for window in read_windows(config, layers)
    ]


def read_windows(config: Config, layers: int) -> Windows:
    """Every fourth layer is global, or as a pattern of L and G says."""
    if config.get("sliding_window", 4096) is None:
        return [None] * layers
    pattern = config.get("sliding_window_pattern", 4)
    if isinstance(pattern, int) and pattern > 0:
        pattern = "L" * (pattern - 1) + "G"
    if config.get("layer_types") is None and (not isinstance(pattern, str) or not pattern or set(pattern) - {*"LG"}):
        raise config.malformed(f"sliding_window_pattern is {shown(pattern)}, a number or letters L and G are needed")
    local = [str(pattern)[i % len(str(pattern))] == "L" for i in range(layers)]
    return by_layer(config, local)
