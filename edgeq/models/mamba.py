"""Mamba: layers of selective scans and nothing else (arXiv:2312.00752)."""

from collections.abc import Mapping

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions
from edgeq.models.layers import Layer, Nothing, Once
from edgeq.models.mixers import Mixer, NoAttention
from edgeq.models.norms import Norm, RMSNorm
from edgeq.models.selective_mixer import Mamba, read_scan

POSITIONS = 1 << 20  # where nothing is said: there is no end to them


def compose(config: Config) -> Model:
    """Without norms within the layers."""
    return selective(config, "mamba")


def selective(config: Config, name: str, norms: tuple[Norm, Norm, Norm] | None = None) -> Model:
    """With `norms` in each layer: see Mamba."""
    n = config.integer("hidden_size")
    shape = read_scan(config, n, "state_size", "conv_kernel", "time_step_rank", "expand")
    mamba = Mamba(n, shape, "mixer", config.flag("use_bias"), config.flag("use_conv_bias", True), norms)
    settings = {"state_size": shape.size, "conv_kernel": shape.taps, "time_step_rank": shape.rank}
    return recurrent(config, name, n, mamba, shape.channels, settings)


def recurrent(
    config: Config, name: str, n: int, mixer: Mixer, width: int, settings: Mapping[str, float] | None = None
) -> Model:
    """The model of such mixers alone, which make `width` values of `n`."""
    eps = config.number("layer_norm_epsilon", 1e-5)
    size = Dimensions(
        n,
        width,
        config.integer("num_hidden_layers", 32, most=MOST_LAYERS),
        config.integer("vocab_size"),
        config.integer("max_position_embeddings", POSITIONS),
    )
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, embedding="backbone.embeddings")
    return Model(
        name,
        size,
        NoAttention(),
        Embedding(embedding),
        [Layer(Once(RMSNorm("attn_norm", "norm", n, eps)), mixer, Nothing())] * size.num_hidden_layers,
        Head(RMSNorm("output_norm", "backbone.norm_f", n, eps), head),
        prefixes=("backbone.", "model.backbone.", ""),
        layers_in="backbone.layers.{}.",
        settings=settings or {},
    )
