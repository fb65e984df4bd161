"""Youtu-LLM: Llama with latent attention."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.deepseek_v2 import USUAL
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm


def compose(config: Config) -> Model:
    """Embedding and head are one, unless it says otherwise."""
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    usual = config.usually(q_lora_rank=1536, rope_interleave=True, **USUAL)
    attention = read_latent_attention(usual, n, usual.flag("rope_interleave"))
    mlp = gated(n, size.intermediate_size, config.activation("hidden_act", "silu"))
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("youtu", config, size, attention, layers, norm, tied=True)
