"""VaultGemma: Gemma 2 that norms only what goes into attention and MLP (arXiv:2510.15001)."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.gemma2 import Named, layered
from edgeq.models.layers import PreNorms


def compose(config: Config) -> Model:
    """1B."""
    return layered("vaultgemma", config, read_norms)


def read_norms(norm: Named) -> PreNorms:
    """`norm` makes one of its names here and there."""
    return PreNorms(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "pre_feedforward_layernorm"))
