"""Mamba-2 by itself, as Codestral Mamba is (arXiv:2405.21060)."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.mamba import recurrent
from edgeq.models.mamba_mixer import Mamba2, MambaShape, checked_shape, refuse_limits


def compose(config: Config) -> Model:
    """What heads give is gated before it is normed: transformers reads no `norm_before_gate`, whatever it says."""
    n, bias = config.integer("hidden_size", 4096), config.flag("use_bias")
    eps = config.number("layer_norm_epsilon", 1e-5)
    shape = read_shape(config, n)
    mixer = Mamba2(n, shape, "mixer", bias, config.flag("use_conv_bias", True), bias, eps)
    return recurrent(config.usually(num_hidden_layers=64, tie_word_embeddings=False), "mamba2", n, mixer, shape.values)


def read_shape(config: Config, n: int) -> MambaShape:
    """That of all layers."""
    shape = MambaShape(
        config.integer("num_heads", 128, most=65_536),
        config.integer("head_dim", 64, most=65_536),
        config.integer("n_groups", 8, most=65_536),
        config.integer("state_size", 128, most=65_536),
        config.integer("conv_kernel", 4, most=64),
    )
    refuse_limits(config)
    config.refuse(hidden_act="silu")  # of the convolution, and of the gate
    return checked_shape(config, shape, config.integer("expand", 2, most=1024) * n)
