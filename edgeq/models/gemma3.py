"""Gemma 3 with eyes (4B and larger): its language model is run, the tensors of its vision tower stay unused."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import gemma3_text

# What its text_config may leave out
USUAL = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208, "max_position_embeddings": 131072}


class Model(gemma3_text.Model):
    """Gemma 3's language model inside a larger model."""

    name = "gemma3"
    prefixes = ("model.", "language_model.model.", "model.language_model.")

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        text = config.get("text_config")
        if not isinstance(text, Mapping):
            raise CheckpointError(f"{source}: text_config is {read.shown(text)}, an object is needed")
        super().__init__({**USUAL, **text}, source)
