"""LFM2-VL (arXiv:2511.23404): SigLIP 2's encoder, which sees tiles of any shape (arXiv:2502.14786); neighbouring states
are joined to one, normed, and become rows of the text through two matrices."""

from functools import partial
from math import isqrt

from edgeq.models.config import Config
from edgeq.models.image_tower import CHANNELS, MOST_SIDE, Images, projector, siglip, siglip_config
from edgeq.models.matrix import Matrix
from edgeq.models.norms import LayerNorm
from edgeq.models.rows_in import RowsIn
from edgeq.vision.shaped import BEGIN, END, IMAGE, MOST_ROWS, WHOLE, read_shaped
from edgeq.vision.stretching import stretched

AT = "model.multi_modal_projector."
NORM_EPS = 1e-5  # torch's
MOST_PATCHES = 1 << 16  # of the square that positions are learned for


def read_images(config: Config, width: int) -> Images:
    """As `config` says, whose text model has rows of `width` values. CheckpointError for sizes that do not fit
    together, UnsupportedError for what is not computed."""
    config.refuse(vision_feature_layer=-1)
    own = siglip_config(config)
    own.refuse(model_type="siglip2_vision_model")
    patch, patches = own.integer("patch_size", most=MOST_SIDE), own.integer("num_patches", 256, most=MOST_PATCHES)
    if isqrt(patches) ** 2 != patches:
        raise config.unsupported(f"num_patches {patches}, those of no square, is not supported")
    joined = config.integer("downsample_factor", 2, most=MOST_SIDE)
    columns, between = own.integer("hidden_size") * joined * joined, config.integer("projector_hidden_size", 2560)
    norm = LayerNorm("input_norm", f"{AT}layer_norm", columns, NORM_EPS)
    biased = config.flag("projector_bias", True)
    rows_in = RowsIn(
        Matrix("1", f"{AT}linear_1", between, columns, biased),
        before=norm if config.flag("projector_use_layernorm", True) else None,
        then=Matrix("2", f"{AT}linear_2", width, between, biased),
        activation=config.activation("projector_hidden_act", "gelu"),
    )
    at = "model.vision_tower.vision_model."
    return Images(
        siglip(own, at, patch, patches, channels=CHANNELS),
        projector(rows_in, MOST_ROWS),
        patch,
        joined,
        MOST_ROWS,
        mean=False,
        whole=False,
        token=config.integer("image_token_id", config.integer("image_token_index", 396)),
        reserved=(IMAGE, BEGIN, END, WHOLE),
        preparation=partial(read_shaped, patch=patch, joined=joined),
        instead=(at, "model.vision_tower."),
        positions=stretched,
    )


def whole_images(config: Config, local: bool) -> int:
    """In the text an image is as causal as the rest."""
    return 0
