"""What tells how GGUF writes an architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes


@dataclass(frozen=True)
class GgufArchitecture:
    """How one `general.architecture` is written in `config.json`.

    model_type    Hugging Face's name
    layer_norm    what config.json calls LayerNorm's epsilon, for which GGUF has a key of its own; RMSNorm without it
    interleaved   rotary embedding turns neighbours (2i, 2i + 1) there, halves (i, i + n / 2) here: the rows of q and k
                  are in another order
    keys          GGUF's further keys -> config.json's
    names         what config.json calls a key that most architectures call otherwise: usual name -> its own
    fixed         keys that every such model has
    assumed       keys that an import adds, because they say what is in the file already
    biases        config.json's key -> a tensor that is there if it is true
    derived       keys that follow from others, which GGUF's readers know by the model's size
    read, write   what no table can say: (values by GGUF's key, shapes of tensors) -> keys of config.json, and (model,
                  config.json) -> values by GGUF's key
    fused         tensors that are several of ours, whose rows follow one another there
    woven         tensors that are several of ours, of which a piece of each follows another, head by head
    renamed       our tensors -> GGUF's, in layers without `blk.N.`
    vectors       matrices of one row that are vectors there, or matrices there that are vectors here; or matrices of
                  heads there, one here; or several here, that are matrices of one tensor there
    folded        vectors here, tensors there whose first axes have these lengths
    bare          tensors without `.weight`, or `.bias`, behind their names there
    yarn          what its yarn scaling has beside the usual
    scaled        the norm of queries, in layers without `blk.N.`, that takes the scores' factor where that is not the
                  one that follows from sizes
    own_rope      its rotary embeddings are gguf_gemma4.py's
    by_layer      keys whose values may differ from layer to layer, where `read` sees to it
    attends       there are layers of attention, of which metadata must tell
    older         a layout that an export does not write again: it takes the newer
    square        all query heads together are as wide as the residual stream there
    """

    model_type: str
    layer_norm: str = ""
    interleaved: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    derived: Callable[[Mapping[str, Any]], Config] | None = None
    read: Callable[[Mapping[str, Any], Shapes], Config] | None = None
    write: Callable[[Model, Mapping[str, Any]], dict[str, Any]] | None = None
    fused: tuple[str, ...] = ()
    woven: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()
    folded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bare: tuple[str, ...] = ("ssm_a", "ssm_d")
    yarn: Mapping[str, Any] = field(default_factory=dict)
    scaled: str = ""
    own_rope: bool = False
    by_layer: tuple[str, ...] = ()
    attends: bool = True
    older: bool = False
    square: bool = False
