"""Gemma 3 with eyes (4B and larger): its language model is run, the tensors of its vision tower stay unused."""

from collections.abc import Mapping
from dataclasses import replace

from edgeq.models import gemma3_text
from edgeq.models.composition import Model
from edgeq.models.config import Config, shown

# What its text_config may leave out
USUAL = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208, "max_position_embeddings": 131072}


def compose(config: Config) -> Model:
    """Gemma 3's language model inside a larger model."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise config.malformed(f"text_config is {shown(text)}, an object is needed")
    model = gemma3_text.compose(config.within({**USUAL, **text}))
    return replace(model, name="gemma3", prefixes=("model.", "language_model.model.", "model.language_model."))
