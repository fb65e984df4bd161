"""Granite 4: layers of Mamba-2 or attention; Granite's factors; an MLP, which mixtures of experts share."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import FeedForward, SharedMLP
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.granitemoe import read_mixture, shared_mlp
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mamba_mixer import Mamba2, read_mamba
from edgeq.models.norms import RMSNorm
from edgeq.ops import NO_ROPE

ATTENTION = ("attention", "full_attention")  # older and newer name
MAMBA = ("mamba", "linear_attention")


def compose(config: Config) -> Model:
    """With experts beside the MLP, or without."""
    size = read_dimensions(config)
    n, added, eps = size.hidden_size, read_added(config), config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps)
    attention = read_attention(config, n, None if config.get("position_embedding_type") == "rope" else NO_ROPE)
    kinds = read_kinds(config, size.num_hidden_layers)
    norms, settings = pre_norms(norm, mixed=added, fed=added), dict[str, float]()
    if config.get("num_local_experts", 8) == 0:
        ffn: FeedForward = shared_mlp(config, n)
        size = size._replace(intermediate_size=config.integer("shared_intermediate_size", 1024))
    else:
        experts, mlp = read_mixture(config, n, size.intermediate_size, added), shared_mlp(config, n, "_shexp")
        ffn, norms = SharedMLP(experts, mlp, added), pre_norms(norm, mixed=added)
        settings = experts.settings("num_local_experts") | {"shared_intermediate_size": mlp.up.rows}
    mamba = read_mixer(config, n, eps) if any(kind in MAMBA for kind in kinds) else None
    mixers = [mamba if mamba and kind in MAMBA else attention for kind in kinds]
    layers = [Layer(norms, mixer, ffn) for mixer in mixers]
    return granite("granitemoehybrid", config, size, attention, layers, norm, settings=settings)


def read_mixer(config: Config, n: int, eps: float) -> Mamba2:
    """That of all such layers."""
    bias = config.flag("mamba_proj_bias")
    shape = read_mamba(config, n)
    return Mamba2(n, shape, "mamba", bias, config.flag("mamba_conv_bias", True), bias, eps)


def read_kinds(config: Config, layers: int) -> list[str]:
    """The kind of each layer; leaving them out means that all are Mamba's."""
    kinds = config.get("layer_types", config.get("layers_block_type"))
    return config.layer_types(layers, (*ATTENTION, *MAMBA), [MAMBA[0]] * layers if kinds is None else kinds)
