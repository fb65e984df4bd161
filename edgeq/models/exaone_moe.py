"""EXAONE's mixture of experts (K-EXAONE): EXAONE 4 that norms what goes into attention and experts, which are chosen by
sigmoids."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.exaone4 import read_mixers
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.sigmoid_mixture import dense_layers, read_mixture


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    size = read_dimensions(config)
    n, eps, count = size.hidden_size, config.number("rms_norm_eps", 1e-5), size.num_hidden_layers
    norm, mlp = partial(RMSNorm, width=n, eps=eps), gated(n, size.intermediate_size, "silu")
    experts = read_mixture(config.usually(num_experts=64, moe_intermediate_size=1024), n, factor=2.5)
    attention, mixers = read_mixers(config, n, eps, count)
    layers = [
        Layer(pre_norms(norm), mixer, mlp if dense else experts)
        for mixer, dense in zip(mixers, read_dense(config, count), strict=True)
    ]
    return decoder("exaone_moe", config, size, attention, layers, norm)


def read_dense(config: Config, layers: int) -> list[bool]:
    """Which layers have an MLP alone: the first one, or as is said."""
    if config.get("mlp_layer_types") is None:
        return dense_layers(config, "first_k_dense_replace", 1, layers)
    kinds = config.layer_types(layers, ("dense", "sparse"), config.get("mlp_layer_types"))
    return [kind == "dense" for kind in kinds]
