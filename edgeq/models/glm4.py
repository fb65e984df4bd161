"""GLM-4-0414: GLM with norms after attention and MLP as well."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.glm import glm
from edgeq.models.layers import BothNorms
from edgeq.models.norms import RMSNorm


def compose(config: Config) -> Model:
    """The norm named after the attention is the one before the MLP."""
    size = read_dimensions(config)
    norm = partial(RMSNorm, width=size.hidden_size, eps=config.number("rms_norm_eps", 1.5625e-7))
    norms = BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_self_attn_layernorm"),
        norm("ffn_norm", "post_attention_layernorm"),
        norm("post_ffw_norm", "post_mlp_layernorm"),
    )
    return glm("glm4", config, size, norm, norms)
