"""What a model sees with: an encoder of patches, and what makes of its states rows that stand for tokens of a text.

Both are models of their own, whose tensors lie beside the text model's under names that begin with TOWER and PROJECTOR.
Idefics3's and SmolVLM's (arXiv:2408.12637, arXiv:2504.05299): SigLIP's encoder, whose neighbouring states are joined to
one, which a matrix projects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rows_in import RowsIn
from edgeq.models.tensors import Tensor
from edgeq.ops import NO_ROPE

SEEING = ("idefics3", "smolvlm")  # whose images are read
TOWER, PROJECTOR = "v.", "mm."
MOST_SIDE = 2048  # pixels of a tile
CHANNELS = 3


@dataclass(frozen=True)
class Images:
    """How a model sees.

    tower, projector: patches to states, and joined states to rows of a text
    side, patch: of a tile and of a patch, in pixels
    joined: how many states of a row, and of a column, are joined to one
    token:  what stands in a text for each row
    """

    tower: Model
    projector: Model
    side: int
    patch: int
    joined: int
    token: int

    @property
    def patches(self) -> int:
        """Of a row of a tile: what is left of its pixels is not seen."""
        return self.side // self.patch

    @property
    def rows(self) -> int:
        """How many rows a tile becomes."""
        return (self.patches // self.joined) ** 2

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that it needs, by the names in the file."""
        parts = ((TOWER, self.tower), (PROJECTOR, self.projector))
        return {before + name: tensor for before, part in parts for name, tensor in part.tensors.items()}


def is_of_images(name: str) -> bool:
    """Whether a tensor of a file is one that a model sees with, and no text goes through."""
    return name.startswith((TOWER, PROJECTOR))


def read_images(config: Config, width: int) -> Images:
    """As the configuration of a larger model says, whose text model has rows of `width` values. CheckpointError for
    sizes that do not fit together, UnsupportedError for what is not computed."""
    given = config.get("vision_config") or {}
    if not isinstance(given, Mapping):
        raise config.malformed(f"vision_config is {shown(given)}, an object is needed")
    own = config.within(given)
    own = own.usually(hidden_size=1152, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=16)
    own = own.usually(image_size=224, patch_size=32, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    own.refuse(num_channels=CHANNELS)
    n, m, count = own.integer("hidden_size"), own.integer("intermediate_size"), own.integer("num_attention_heads")
    side, patch = own.integer("image_size", most=MOST_SIDE), own.integer("patch_size", most=MOST_SIDE)
    joined = config.integer("scale_factor", 2, most=MOST_SIDE)
    patches = side // patch
    if patches == 0 or patches % joined:
        what = f"tiles of {side} pixels, patches of {patch} and {joined} by {joined} of these joined"
        raise config.unsupported(f"{what} do not fit together")
    if n % count:
        raise config.malformed(f"{count} attention heads cannot share {n} values evenly")
    layers = own.integer("num_hidden_layers", most=MOST_LAYERS)
    size = Dimensions(n, m, layers, 1, patches * patches)
    heads = replace(checked(own, count, count, n // count), causal=False)
    norm = partial(LayerNorm, width=n, eps=own.number("layer_norm_eps"))
    seen = output(n, heads, True, "self_attn.out_proj")._replace(name="attn_out")
    attention = Attention(separate(n, heads, True), seen, heads, NO_ROPE)
    mlp = plain(n, m, own.activation("hidden_act", "gelu_pytorch_tanh"), "mlp.fc1", "mlp.fc2", bias=True)
    norms = PreNorms(norm("ln1", "layer_norm1"), norm("ln2", "layer_norm2"))
    at = "model.vision_model."
    first = Matrix("patch_embd", f"{at}embeddings.patch_embedding", n, CHANNELS * patch * patch, bias=True)
    positions = Matrix("position_embd", f"{at}embeddings.position_embedding", patches * patches, n)
    tower = Model(
        "image tower",
        size,
        attention,
        RowsIn(first, positions, (CHANNELS, patch, patch)),
        [Layer(norms, attention, mlp)] * layers,
        None,
        last=norm("post_ln", f"{at}post_layernorm"),
        layers_in=f"{at}encoder.layers.{{}}.",
        bare=True,
    )
    matrix = Matrix("model.fc", "model.connector.modality_projection.proj", width, n * joined * joined)
    size = Dimensions(width, m, 0, 1, (patches // joined) ** 2)
    projector = Model("image projector", size, attention, RowsIn(matrix), [], None, bare=True)
    return Images(tower, projector, side, patch, joined, config.integer("image_token_id", 128257))
