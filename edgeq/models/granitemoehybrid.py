"""Granite 4 without Mamba layers (micro, 350M, 1B): Granite whose MLP is the one that its mixtures share."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import SharedMLP
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.granitemoe import read_mixture, shared_mlp
from edgeq.models.layers import Layer, Norms, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.ops import NO_ROPE

ATTENTION = ("attention", "full_attention")  # older and newer name


def compose(config: Config) -> Model:
    """With experts beside the MLP, or without."""
    size = read_dimensions(config)
    n, added = size.hidden_size, read_added(config)
    if not all_attention(config, size.num_hidden_layers):
        raise config.unsupported("layers of Mamba are not supported: take a model without (its name has no -h)")
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    attention = read_attention(config, n, None if config.get("position_embedding_type") == "rope" else NO_ROPE)
    if config.get("num_local_experts", 8) == 0:
        mlp = shared_mlp(config, n)
        size = size._replace(intermediate_size=mlp.up.rows)
        norms: Norms = pre_norms(norm, mixed=added, fed=added)
        layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
        return granite("granitemoehybrid", config, size, attention, layers, norm)
    experts = read_mixture(config, n, size.intermediate_size, added)
    both = SharedMLP(experts, shared_mlp(config, n, "_shexp"), added)
    layers = [Layer(pre_norms(norm, mixed=added), attention, both)] * size.num_hidden_layers
    settings = experts.settings("num_local_experts") | {"shared_intermediate_size": both.shared.up.rows}
    return granite("granitemoehybrid", config, size, attention, layers, norm, settings=settings)


def all_attention(config: Config, layers: int) -> bool:
    """Whether that is all there is; leaving the kinds out means that nothing is."""
    kinds = config.get("layer_types", config.get("layers_block_type"))
    if kinds is None:
        return False
    if not isinstance(kinds, list) or len(kinds) < layers:
        raise config.malformed(f"layer_types is {shown(kinds)}, a list of {layers} is needed")
    return all(kind in ATTENTION for kind in kinds[:layers])
