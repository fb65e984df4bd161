"""Granite's mixtures of experts with an MLP for every token beside them."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import SharedMLP
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.granitemoe import read_mixture, shared_mlp
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm


def compose(config: Config) -> Model:
    """A shared_intermediate_size of 0 says that there is none."""
    size = read_dimensions(config)
    n, added = size.hidden_size, read_added(config)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    attention, experts = read_attention(config, n), read_mixture(config, n, size.intermediate_size, added)
    shared = config.get("shared_intermediate_size", 0) != 0
    mlp = shared_mlp(config, n, "_shexp") if shared else None
    ffn = SharedMLP(experts, mlp, added) if mlp else experts
    layers = [Layer(pre_norms(norm, mixed=added), attention, ffn)] * size.num_hidden_layers
    settings = experts.settings("num_local_experts") | {"shared_intermediate_size": mlp.up.rows if mlp else 0}
    return granite("granitemoeshared", config, size, attention, layers, norm, settings=settings)
