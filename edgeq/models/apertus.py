"""Apertus: Llama with normed heads, and an MLP without a gate, of xIELU (arXiv:2509.14233, arXiv:2411.13010)."""

from functools import partial
from typing import Any

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 12000000.0
# What leaving out the rotary embedding means
ROPE = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
GIVEN = "edgeq_xielu"  # a key of ours: the values of all layers' activations, of models that have no tensors of these
XIELU = (
    ("ffn_act.alpha_p", "mlp.act_fn.alpha_p", 1),
    ("ffn_act.alpha_n", "mlp.act_fn.alpha_n", 1),
    ("ffn_act.beta", "mlp.act_fn.beta", 0),
    ("ffn_act.eps", "mlp.act_fn.eps", 0),
)


def compose(config: Config) -> Model:
    """The activation of each layer has four values of its own."""
    if not config.get("rope_parameters") and not config.get("rope_scaling") and "rope_theta" not in config:
        config = config.changed(rope_parameters=ROPE)
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    rotation = rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, head_norms(heads, eps))
    bent = config.get("hidden_act", "xielu") == "xielu"
    activation = "xielu" if bent else config.activation("hidden_act", "xielu")
    mlp = plain(n, m, activation, "mlp.up_proj", "mlp.down_proj")
    mlps = [mlp._replace(**values) for values in read_values(config, size.num_hidden_layers if bent else 0)]
    norms = PreNorms(norm("attn_norm", "attention_layernorm"), norm("ffn_norm", "feedforward_layernorm"))
    layers = [Layer(norms, attention, one) for one in mlps or [mlp] * size.num_hidden_layers]
    return decoder("apertus", config, size, attention, layers, norm, settings={"rope_theta": THETA})


def read_values(config: Config, layers: int) -> list[dict[str, Any]]:
    """What each layer's MLP knows of its activation: the names of tensors, or numbers."""
    given = config.get(GIVEN)
    if given is None:
        return [{"parameters": XIELU}] * layers
    names = [name.removeprefix("ffn_act.") for name, _, _ in XIELU]
    if not isinstance(given, dict) or not all(_numbers(given.get(name), layers) for name in names):
        raise config.malformed(f"{GIVEN} is {shown(given)}, lists of {layers} numbers are needed")
    return [{"values": tuple(float(given[name][i]) for name in names)} for i in range(layers)]


def _numbers(given: Any, count: int) -> bool:
    return isinstance(given, list) and len(given) >= count and all(isinstance(value, int | float) for value in given)
