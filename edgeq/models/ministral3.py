"""Ministral 3: Mistral whose queries grow with their position, beyond the length of the first training."""

from dataclasses import replace

from edgeq.models import mistral
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.layers import Layer
from edgeq.models.mixers import Attention
from edgeq.models.rope_scaling import rope_parameters
from edgeq.ops import Rope

# What leaving out the rotary embedding means
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def compose(config: Config) -> Model:
    """By 1 + beta log(1 + floor(position / length)), which multiplies their rotation."""
    config = config.usually(head_dim=128, rms_norm_eps=1e-5, sliding_window=None)
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        config = config.changed(rope_parameters=ROPE)
    given = config.within(rope_parameters(config))
    model, beta = mistral.compose(config), given.optional("llama_4_scaling_beta")
    if not beta:
        return replace(model, name="ministral3")
    span = given.integer("original_max_position_embeddings", model.max_position_embeddings)
    growing = replace(model.rope, query_growth=beta, query_span=span)
    if 2 * len(growing.inverse_frequencies) != model.heads.head_dim:
        raise config.unsupported("llama_4_scaling_beta where a part of each head is rotated is not supported")
    layers = [Layer(layer.norms, _with(layer.mixer, growing), layer.ffn) for layer in model.layers]
    return replace(model, name="ministral3", attention=model.attention._replace(rope=growing), layers=layers)


def _with(mixer: object, rotation: Rope) -> Attention:
    assert isinstance(mixer, Attention)
    return mixer._replace(rope=rotation)
