"""Jais 2: Llama with LayerNorm, biases, and an MLP without a gate, of squared ReLU."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import whole_rope


def compose(config: Config) -> Model:
    """Every matrix of a layer has a bias unless the configuration says otherwise."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5))
    heads, bias = read_heads(config, n), config.flag("attention_bias", True)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, whole_rope(config, heads.head_dim))
    kind, biased = config.activation("hidden_act", "relu2"), config.flag("mlp_bias", True)
    mlp = plain(n, m, kind, "mlp.up_proj", "mlp.down_proj", biased)
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("jais2", config, size, attention, layers, norm)
