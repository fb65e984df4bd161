"""CamemBERT: RoBERTa for French (arXiv:1911.03894)."""

from dataclasses import replace

from edgeq.models import roberta
from edgeq.models.composition import Model
from edgeq.models.config import Config


def compose(config: Config) -> Model:
    """Its checkpoints name their tensors as RoBERTa's do."""
    return replace(roberta.compose(config), name="camembert")
