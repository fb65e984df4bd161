"""What a model sees with: an encoder of patches, and what makes of its states rows that stand for tokens of a text.

Both are models of their own, whose tensors lie beside the text model's under names that begin with TOWER and PROJECTOR.
Families differ in how images are prepared and written (vision/preparation.py), in the encoder, in what makes one row
of neighbouring states, and in whether the rows of an image see one another in the text: a file of FAMILIES says that
of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, NoAttention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rows_in import RowsIn
from edgeq.models.tensors import Tensor
from edgeq.ops import NO_ROPE
from edgeq.vision.preparation import Preparation
from edgeq.vision.stretching import F32

# model_type of those whose images are read -> the file here which says how: its `read_images` gives Images of a
# configuration and the width of the text's rows, its `whole_images` what Heads has by that name
FAMILIES = {
    "idefics3": "idefics3",
    "smolvlm": "idefics3",
    "gemma3": "gemma3",
    "gemma4": "gemma4",
    "lfm2_vl": "lfm2_vl",
}
TOWER, PROJECTOR = "v.", "mm."
MOST_SIDE = 2048  # pixels of a tile
CHANNELS = 3


@dataclass(frozen=True)
class Images:
    """How a model sees.

    tower, projector: patches to states, and joined states to rows of a text
    patch:  how many pixels it has in a row
    joined: how many states of a row, and of a column, become one row of a text
    rows:   that a tile becomes, at most
    mean:   that row is their mean: otherwise they are one after the other
    whole:  rows of an image see one another in a text, see Heads.whole_images
    token:  what stands in a text for each row
    reserved: names of tokens that stand for images, and are text where somebody says them
    preparation: how a checkpoint's small files, which are called so in messages, say that images are prepared;
            UnsupportedError for what is not followed
    instead: what the checkpoint's names of the tower begin with, and what they may begin with instead
    positions: what makes those of a tile of so many rows and columns of patches, row by row, of the tower's, f32 [their
            number, hidden size], where tiles have several shapes
    """

    tower: Model
    projector: Model
    patch: int
    joined: int
    rows: int
    mean: bool
    whole: bool
    token: int
    reserved: tuple[str, ...]
    preparation: Callable[[Mapping[str, bytes], str], Preparation]
    instead: tuple[str, str] = ("", "")
    positions: Callable[[F32, int, int], F32] | None = None

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that it needs, by the names in the file."""
        parts = ((TOWER, self.tower), (PROJECTOR, self.projector))
        found = {before + name: tensor for before, part in parts for name, tensor in part.tensors.items()}
        return {name: self._also_called(tensor) for name, tensor in found.items()}

    def _also_called(self, tensor: Tensor) -> Tensor:
        usual, other = self.instead
        if not usual or not all(part.source.startswith(usual) for part in tensor.parts):
            return tensor
        return tensor._replace(instead=tuple(p._replace(source=other + p.source[len(usual) :]) for p in tensor.parts))


def is_of_images(name: str) -> bool:
    """Whether a tensor of a file is one that a model sees with, and no text goes through."""
    return name.startswith((TOWER, PROJECTOR))


def vision_config(config: Config) -> Config:
    """That of the encoder inside a larger model. CheckpointError for what is none."""
    given = config.get("vision_config") or {}
    if not isinstance(given, Mapping):
        raise config.malformed(f"vision_config is {shown(given)}, an object is needed")
    return config.within(given)


class Siglip(NamedTuple):
    """SigLIP's encoder (arXiv:2303.15343) of tiles of `side` pixels, patches of `patch`, as `config` says."""

    tower: Model
    side: int
    patch: int
    config: Config


def read_siglip(config: Config, at: str, **usual: int) -> Siglip:
    """As `vision_config` of a larger model says, or `usual` where it says nothing; the checkpoint has the encoder under
    names that begin with `at`. CheckpointError for sizes that do not fit together, UnsupportedError for what is not
    computed."""
    own = siglip_config(config, **usual)
    side, patch = own.integer("image_size", 224, most=MOST_SIDE), own.integer("patch_size", most=MOST_SIDE)
    if side < patch:
        raise config.unsupported(f"tiles of {side} pixels have no room for patches of {patch}")
    return Siglip(siglip(own, at, patch, (side // patch) ** 2, axes=(CHANNELS, patch, patch)), side, patch, own)


def siglip_config(config: Config, **usual: int) -> Config:
    """`vision_config` of a larger model, with what SigLIP's usually are where it says nothing. CheckpointError if it is
    no object, UnsupportedError for other channels."""
    own = vision_config(config).usually(**usual)
    own = own.usually(patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    own = own.usually(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    own.refuse(num_channels=CHANNELS)
    return own


def siglip(own: Config, at: str, patch: int, patches: int, **first: Any) -> Model:
    """The encoder of patches of `patch` pixels that has positions for so many; `first` says how the checkpoint has the
    matrix of pixels, see RowsIn. Raises as read_siglip."""
    n, m, count = own.integer("hidden_size"), own.integer("intermediate_size"), own.integer("num_attention_heads")
    if n % count:
        raise own.malformed(f"{count} attention heads cannot share {n} values evenly")
    layers = own.integer("num_hidden_layers", most=MOST_LAYERS)
    size = Dimensions(n, m, layers, 1, patches)
    heads = replace(checked(own, count, count, n // count), causal=False)
    norm = partial(LayerNorm, width=n, eps=own.number("layer_norm_eps"))
    seen = output(n, heads, True, "self_attn.out_proj")._replace(name="attn_out")
    attention = Attention(separate(n, heads, True), seen, heads, NO_ROPE)
    mlp = plain(n, m, own.activation("hidden_act", "gelu_pytorch_tanh"), "mlp.fc1", "mlp.fc2", bias=True)
    norms = PreNorms(norm("ln1", "layer_norm1"), norm("ln2", "layer_norm2"))
    pixels = Matrix("patch_embd", f"{at}embeddings.patch_embedding", n, CHANNELS * patch * patch, bias=True)
    positions = Matrix("position_embd", f"{at}embeddings.position_embedding", patches, n)
    return Model(
        "image tower",
        size,
        attention,
        RowsIn(pixels, positions, **first),
        [Layer(norms, attention, mlp)] * layers,
        None,
        last=norm("post_ln", f"{at}post_layernorm"),
        layers_in=f"{at}encoder.layers.{{}}.",
        bare=True,
    )


def projector(rows_in: RowsIn, rows: int) -> Model:
    """What makes so many rows of a text of joined states."""
    size = Dimensions(rows_in.width, 1, 0, 1, rows)
    return Model("image projector", size, NoAttention(), rows_in, [], None, bare=True)
