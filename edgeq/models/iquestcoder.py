"""IQuest Coder: Llama under another name."""

from dataclasses import replace

from edgeq.models import llama
from edgeq.models.composition import Model
from edgeq.models.config import Config

# What leaving these out means
USUAL = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
}


def compose(config: Config) -> Model:
    """What its first code could do beside, no checkpoint asks for."""
    config.refuse(clip_qkv=None, use_sliding_window=False)
    return replace(llama.compose(config.usually(**USUAL)), name="iquestcoder")
