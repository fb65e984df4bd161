"""Ministral 8B: Mistral that says of each layer whether it looks back over a window only."""

from dataclasses import replace

from edgeq.models import mistral
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.layers import Layer
from edgeq.models.mixers import Attention
from edgeq.models.windows import by_layer


def compose(config: Config) -> Model:
    """Where nothing is said of layers all are local, or none if there is no window."""
    model = mistral.compose(config)
    windowed = config.get("sliding_window", mistral.WINDOW) is not None
    windows = by_layer(config, [windowed] * model.num_hidden_layers)
    assert isinstance(model.attention, Attention)
    attention = model.attention
    layers = [
        Layer(layer.norms, attention.over(window), layer.ffn)
        for layer, window in zip(model.layers, windows, strict=True)
    ]
    return replace(model, name="ministral", layers=layers)
