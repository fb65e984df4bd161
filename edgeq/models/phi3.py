"""Phi-3, Phi-3.5 and Phi-4 mini: Llama whose checkpoints fuse q, k and v, and gate and up (arXiv:2404.14219)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import fused_gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, fused, output
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope, rope_parameters, scaling_type
from edgeq.models.windows import everywhere
from edgeq.ops import Rope

ADAPTED = "edgeq_base_layers"  # a key of ours: the checkpoint's matrices lie beside adapters, which are not read


def compose(config: Config) -> Model:
    """There are no biases."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads = read_heads(config, n)
    window = everywhere(config)
    rotation = read_rope(config, heads.head_dim)
    base = ".base_layer" if config.flag(ADAPTED) else ""
    qkv, out = fused(n, heads, f"self_attn.qkv_proj{base}"), output(n, heads, source=f"self_attn.o_proj{base}")
    attention = Attention(qkv, out, heads, rotation)
    kind = config.activation("hidden_act", "silu")
    mlp = fused_gated(n, m, kind, f"mlp.gate_up_proj{base}", f"mlp.down_proj{base}")
    layers = [Layer(pre_norms(norm), attention.over(window), mlp)] * size.num_hidden_layers
    return decoder("phi3", config, size, attention, layers, norm)


def read_rope(config: Config, head_dim: int) -> Rope:
    """The first checkpoints called longrope `su`, some `yarn`."""
    scaling = rope_parameters(config)
    if scaling_type(scaling) in ("su", "yarn"):
        config = config.changed(rope_parameters={**scaling, "rope_type": "longrope"}, rope_scaling=None)
    return rope(config.usually(original_max_position_embeddings=4096), head_dim)
