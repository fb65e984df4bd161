"""Idefics3 and SmolVLM (arXiv:2408.12637, arXiv:2504.05299): SigLIP's encoder, whose neighbouring states are joined to
one, which a matrix projects."""

from functools import partial

from edgeq.models.config import Config
from edgeq.models.image_tower import MOST_SIDE, Images, projector, read_siglip
from edgeq.models.matrix import Matrix
from edgeq.models.rows_in import RowsIn
from edgeq.vision.tiling import IMAGE, read_tiling


def read_images(config: Config, width: int) -> Images:
    """As `config` says, whose text model has rows of `width` values. CheckpointError for sizes that do not fit
    together, UnsupportedError for what is not computed."""
    seen = read_siglip(config, "model.vision_model.", hidden_size=1152, num_attention_heads=16, patch_size=32)
    tower, side, patch, _ = seen
    joined, patches = config.integer("scale_factor", 2, most=MOST_SIDE), side // patch
    if patches % joined:
        what = f"tiles of {side} pixels, patches of {patch} and {joined} by {joined} of these joined"
        raise config.unsupported(f"{what} do not fit together")
    columns = tower.size.hidden_size * joined * joined
    matrix = Matrix("model.fc", "model.connector.modality_projection.proj", width, columns)
    rows, token = (patches // joined) ** 2, config.integer("image_token_id", 128257)
    prepare = partial(read_tiling, side=side, rows=rows)
    return Images(tower, projector(RowsIn(matrix), rows), patch, joined, rows, False, False, token, (IMAGE,), prepare)


def whole_images(config: Config, local: bool) -> int:
    """In the text an image is as causal as the rest."""
    return 0
