"""ELECTRA's discriminator: BERT, whose embeddings may be narrower than its layers (arXiv:2003.10555)."""

from edgeq.models.bert import encoder
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions


def compose(config: Config) -> Model:
    """Embeddings of another width are projected."""
    size = read_dimensions(config)
    width = config.integer("embedding_size", 128)
    return encoder("electra", config, size, narrow=width if width != size.hidden_size else None)
