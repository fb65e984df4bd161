"""HyperCLOVA X SEED: Granite that norms what it adds to the residual stream, too, and multiplies logits."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, gated
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.layers import Layer, Norms, pre_norms
from edgeq.models.matrix import layer_name
from edgeq.models.mixers import Mixer
from edgeq.models.norms import Norm, RMSNorm
from edgeq.ops import Graph, Value


class ScaledNorms(NamedTuple):
    """What reads x reads it normed, and what is added to it is normed again, then multiplied by `factor`."""

    before_mixer: Norm
    after_mixer: Norm
    before_ffn: Norm
    after_ffn: Norm
    factor: float

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        """Layer i on x."""
        at = layer_name(i)
        mixed = mixer.graph(g, self.before_mixer.graph(g, x, at), i)
        x = g.add(x, self.after_mixer.graph(g, mixed, at), self.factor)
        fed = ffn.graph(g, self.before_ffn.graph(g, x, at), i)
        return g.add(x, self.after_ffn.graph(g, fed, at), self.factor)


def compose(config: Config) -> Model:
    """Scores are scaled by the head's size where nothing else is said."""
    size = read_dimensions(config)
    n, m, added = size.hidden_size, size.intermediate_size, read_added(config)
    if config.get("attention_multiplier") is None:
        config = config.changed(attention_multiplier=read_heads(config, n).head_dim ** -0.5)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    norms: Norms = pre_norms(norm, mixed=added, fed=added)
    if config.flag("use_post_norm", True):
        norms = ScaledNorms(
            norm("attn_norm", "input_layernorm"),
            norm("post_attention_norm", "post_norm1"),
            norm("ffn_norm", "post_attention_layernorm"),
            norm("post_ffw_norm", "post_norm2"),
            added,
        )
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(norms, read_attention(config, n), mlp)] * size.num_hidden_layers
    model = granite("hyperclovax", config, size, read_attention(config, n), layers, norm)
    assert model.head is not None
    return replace(model, head=model.head._replace(factor=config.number("logits_scaling", 1.0)))
