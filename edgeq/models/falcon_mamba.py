"""Falcon Mamba: Mamba with norms within its layers (arXiv:2410.05355)."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.mamba import selective
from edgeq.models.norms import PlainRMSNorm


def compose(config: Config) -> Model:
    """The norms have no weights."""
    norm = PlainRMSNorm(config.number("mixer_rms_eps", 1e-6))
    return selective(config, "falcon_mamba", (norm, norm, norm))
