"""StableLM 2 and StableLM 3B: Llama with LayerNorm, a part of each head rotated (arXiv:2402.17834)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, Parallel, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import HeadLayerNorm, LayerNorm
from edgeq.models.rope_scaling import rope
from edgeq.ops import Heads


def compose(config: Config) -> Model:
    """Layers are parallel or not; the parallel ones of 12B have normed heads too."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("layer_norm_eps", 1e-5)
    norm = partial(LayerNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("use_qkv_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads), heads, rope(config, heads.head_dim, partial=0.25))
    if config.flag("qk_layernorm"):
        attention = attention._replace(norms=read_norms(heads, eps))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    parallel = config.flag("use_parallel_residual")
    norms = Parallel(norm("attn_norm", "input_layernorm")) if parallel else pre_norms(norm)
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return decoder("stablelm", config, size, attention, layers, norm)


def read_norms(heads: Heads, eps: float) -> tuple[HeadLayerNorm, HeadLayerNorm]:
    """Of every query head and every key head, each with weights of its own."""
    source, norm = "self_attn.{}_layernorm.norms.{{}}", partial(HeadLayerNorm, head_dim=heads.head_dim, eps=eps)
    return (
        norm("attn_q_norm", source.format("q"), apart=heads.num_attention_heads),
        norm("attn_k_norm", source.format("k"), apart=heads.num_key_value_heads),
    )
