"""Granite's mixtures of experts with local layers, a sink per head, and perhaps an MLP for every token."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import SharedMLP
from edgeq.models.granite import granite, read_added
from edgeq.models.granite_swa import read_mixers
from edgeq.models.granitemoe import IN_FILES, IN_MEMORY, read_mixture, shared_mlp
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm


def compose(config: Config) -> Model:
    """A shared_intermediate_size of 0 says that there is no MLP for every token."""
    size = read_dimensions(config)
    n, added = size.hidden_size, read_added(config)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    experts = read_mixture(config, n, size.intermediate_size, added, (IN_MEMORY, IN_FILES))
    mixers = read_mixers(config, size)
    shared = config.get("shared_intermediate_size", 0) != 0
    ffn = SharedMLP(experts, shared_mlp(config, n, "_shexp"), added) if shared else experts
    layers = [Layer(pre_norms(norm, mixed=added), mixer, ffn) for mixer in mixers]
    settings = experts.settings("num_local_experts")
    return granite("granitemoe_swa", config, size, mixers[0].over(None), layers, norm, settings=settings)
