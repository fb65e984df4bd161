"""RoBERTa: BERT whose positions are counted from after the padding token's number (arXiv:1907.11692)."""

from edgeq.models.bert import encoder, position_table
from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import Dimensions, read_dimensions
from edgeq.models.matrix import Matrix
from edgeq.models.tensors import Fused


def compose(config: Config) -> Model:
    """The embeddings of positions before the first are not needed."""
    size, positions = positions_after_padding("roberta", config, read_dimensions(config))
    return encoder("roberta", config, size, positions)


def positions_after_padding(name: str, config: Config, size: Dimensions) -> tuple[Dimensions, Matrix]:
    """The size with the positions that are left, and their embeddings."""
    padding, rows = config.get("pad_token_id", 1), size.max_position_embeddings
    if not isinstance(padding, int) or not 0 <= padding < rows - 1:
        raise config.malformed(f"pad_token_id is {shown(padding)}, a number below {rows - 1} is needed")
    size = size._replace(max_position_embeddings=rows - padding - 1)
    return size, position_table(name, size)._replace(fused=Fused(rows, first=padding + 1))
