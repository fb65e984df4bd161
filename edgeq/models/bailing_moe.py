"""Ling: its second version, which has the first one's model type in its checkpoints."""

from edgeq.errors import UnsupportedError
from edgeq.models import bailing_moe_v2
from edgeq.models.composition import Model
from edgeq.models.config import Config


def compose(config: Config) -> Model:
    """Only the second has groups of experts."""
    if config.get("n_group") is None:
        raise UnsupportedError(
            f"{config.source}: is a Ling before version 2.0, which is not supported: take one of 2.0, Ling-mini-2.0 say"
        )
    return bailing_moe_v2.compose(config)
