"""InternLM 3: Llama whose configurations call biases otherwise."""

from dataclasses import replace

from edgeq.models import llama
from edgeq.models.composition import Model
from edgeq.models.config import Config

NAMES = {"qkv_bias": "attention_bias", "bias": "mlp_bias"}  # its own -> Llama's


def compose(config: Config) -> Model:
    """A bias everywhere, or nowhere."""
    said = {theirs: config.flag(own) for own, theirs in NAMES.items() if own in config}
    config = config.usually(**said, head_dim=128, rms_norm_eps=1e-5)
    if config.flag("attention_bias") != config.flag("mlp_bias"):
        raise config.unsupported("a bias of q, k and v, but not of all other matrices, is not supported")
    return replace(llama.compose(config), name="internlm3")
