"""OLMo 3: OLMo 2 with three local layers to each global one; scalings of the rotary embedding are for the latter."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, post_norms
from edgeq.models.mixers import Attention, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import local_rope, rope
from edgeq.models.windows import by_layer

THETA = 500000.0


def compose(config: Config) -> Model:
    """Queries and keys are normed over all heads at once."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    windows = by_layer(config, [(i + 1) % 4 != 0 for i in range(size.num_hidden_layers)])
    rotation, local = rope(config, heads.head_dim, theta=THETA), local_rope(config, heads.head_dim, THETA)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, whole_norms(heads, eps))
    mlp, norms = gated(n, m, config.activation("hidden_act", "silu")), post_norms(norm)
    layers = [
        Layer(norms, attention._replace(rope=local if window else rotation).over(window), mlp) for window in windows
    ]
    return decoder("olmo3", config, size, attention, layers, norm, settings={"rope_theta": THETA})
