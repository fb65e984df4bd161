"""DeepSeek-V3 (arXiv:2412.19437): latent attention; after the first layers experts that sigmoids choose, beside one for
every token."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.deepseek_v2 import USUAL
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.sigmoid_mixture import dense_layers, read_mixture


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    usual = config.usually(q_lora_rank=1536, rope_interleave=True, n_group=8, topk_group=4, **USUAL)
    attention = read_latent_attention(usual, n, usual.flag("rope_interleave"))
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(usual, n, factor=2.5, usual=256)
    dense = dense_layers(config, "first_k_dense_replace", 3, size.num_hidden_layers)
    layers = [Layer(pre_norms(norm), attention, mlp if here else experts) for here in dense]
    return decoder("deepseek_v3", config, size, attention, layers, norm)
