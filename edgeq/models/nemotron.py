"""Nemotron 4 and Minitron: LayerNorm whose weights are counted from 1, an MLP without a gate, of squared ReLU; a part
of each head is rotated (arXiv:2407.14679)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Half of each head is rotated, unless the configuration says otherwise."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("norm_eps", 1e-5), add=1.0)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    attention = Attention(
        separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim, partial=0.5)
    )
    activation, biased = config.activation("hidden_act", "relu2"), config.flag("mlp_bias")
    mlp = plain(n, m, activation, "mlp.up_proj", "mlp.down_proj", biased)
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("nemotron", config, size, attention, layers, norm)
