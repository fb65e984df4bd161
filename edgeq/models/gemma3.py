"""Gemma 3 that sees (arXiv:2503.19786): SigLIP's encoder, the means of whose neighbouring states are normed and
projected; the rows of an image see one another in the text."""

from functools import partial
from math import isqrt

from edgeq.models.config import Config
from edgeq.models.image_tower import MOST_SIDE, Images, projector, read_siglip
from edgeq.models.matrix import Matrix
from edgeq.models.norms import RMSNorm
from edgeq.models.rows_in import RowsIn
from edgeq.vision.whole import BEGIN, IMAGE, read_whole

SIGLIP = "siglip_vision_model"


def read_images(config: Config, width: int) -> Images:
    """As `config` says, whose text model has rows of `width` values. CheckpointError for sizes that do not fit
    together, UnsupportedError for what is not computed."""
    tower, side, patch, own = read_siglip(config, "model.vision_tower.vision_model.")
    own.refuse(model_type=SIGLIP)
    rows, patches, n = whole_images(config, True), side // patch, tower.size.hidden_size
    across = isqrt(rows)
    if across * across != rows or patches % across:
        raise config.unsupported(f"{rows} rows of {patches} by {patches} patches do not fit together")
    at = "model.multi_modal_projector."
    norm = RMSNorm("soft_emb_norm", f"{at}mm_soft_emb_norm", n, own.number("layer_norm_eps"), add=1.0)
    matrix = Matrix("input_projection", f"{at}mm_input_projection_weight", width, n, transposed=True, ending="")
    return Images(
        tower,
        projector(RowsIn(matrix, before=norm), rows),
        patch,
        patches // across,
        rows,
        mean=True,
        whole=True,
        token=config.integer("image_token_index", config.integer("image_token_id", 262144)),
        reserved=(BEGIN, IMAGE),
        preparation=partial(read_whole, side=side, rows=rows),
        instead=("model.vision_tower.vision_model.", "model.vision_tower."),
    )


def whole_images(config: Config, local: bool) -> int:
    """The rows of an image, which see one another in all layers."""
    return config.integer("mm_tokens_per_image", 256, most=MOST_SIDE)
