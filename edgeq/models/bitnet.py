"""BitNet b1.58: Llama with a norm before each output projection; its weights are -1, 0 or 1 times a scale per matrix
(arXiv:2402.17764)."""

from collections.abc import Mapping
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """BitNet: ternary weights, or those from training, which are rounded to ternary ones."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias, ternary = read_heads(config, n), config.flag("attention_bias"), from_training(config)
    attention = Attention(
        separate(n, heads, bias, ternary=ternary),
        output(n, heads, bias, ternary=ternary),
        heads,
        rope(config, heads.head_dim),
        inner_norm=norm("attn_sub_norm", "self_attn.attn_sub_norm"),
    )
    mlp = gated(n, m, config.activation("hidden_act", "relu2"), config.flag("mlp_bias"), ternary=ternary)._replace(
        inner_norm=norm("ffn_sub_norm", "mlp.ffn_sub_norm", width=m),
    )
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("bitnet", config, size, attention, layers, norm)


def from_training(config: Config) -> bool:
    """Whether the checkpoint's weights are those from training."""
    quantization = config.get("quantization_config") or {}
    online = isinstance(quantization, Mapping) and quantization.get("quantization_mode") == "online"
    if online and (quantization.get("linear_class") != "autobitlinear" or quantization.get("use_rms_norm")):
        raise config.unsupported(
            f"quantization_config {shown(quantization)} is not supported: convert a checkpoint of autobitlinear layers"
        )
    return online
