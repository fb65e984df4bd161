"""StarCoder2: Llama with LayerNorm, biases everywhere and an MLP without a gate (arXiv:2402.19173)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import everywhere


def compose(config: Config) -> Model:
    """Biases are everywhere or nowhere, in the MLP too."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("norm_epsilon", 1e-5))
    heads, bias = read_heads(config, n), config.flag("use_bias", True)
    window = everywhere(config)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    mlp = plain(n, m, config.activation("hidden_act", "gelu_pytorch_tanh"), "mlp.c_fc", "mlp.c_proj", bias)
    layers = [Layer(pre_norms(norm), attention.over(window), mlp)] * size.num_hidden_layers
    return decoder("starcoder2", config, size, attention, layers, norm, tied=True)
