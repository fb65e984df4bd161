"""GGUF of what a model sees with (mmproj files of llama.cpp) as the larger model's `config.json`,
its settings of images, and what holds each of our tensors."""

import json
from array import array
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import images
from edgeq.models.gguf_rope import number, shortest
from edgeq.models.image_tower import PROJECTOR, TOWER
from edgeq.vision.tiling import LANCZOS
from edgeq.vision.whole import BILINEAR

Values = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


class Family(NamedTuple):
    """A projector of llama.cpp's.

    model_type: of the larger model; texts: the architectures of GGUF that its text model may have
    token:  what stands in a text for each row of an image
    joined: how many states of a row and of a column become one row of a text, where no key says it
    write:  (keys after `clip.vision.`, `joined`, the token's id) -> further keys of config.json, settings of images
    turned: tensors whose rows are columns there
    """

    model_type: str
    texts: tuple[str, ...]
    token: str
    joined: int
    write: Callable[[Values, int, int], tuple[Values, Values]]
    turned: tuple[str, ...] = ()


def _gemma3(values: Values, joined: int, token: int) -> tuple[Values, Values]:
    side = values["image_size"]
    config = {"mm_tokens_per_image": (side // values["patch_size"] // joined) ** 2, "image_token_index": token}
    return config, {"size": {"height": side, "width": side}, "resample": BILINEAR}


def _idefics3(values: Values, joined: int, token: int) -> tuple[Values, Values]:
    side = values["image_size"]
    edges = {"size": {"longest_edge": values.get("preproc_image_size", side)}, "max_image_size": {"longest_edge": side}}
    return {"scale_factor": joined, "image_token_id": token}, {**edges, "resample": LANCZOS}


FAMILIES = {
    "gemma3": Family("gemma3", ("gemma3",), "<image_soft_token>", 4, _gemma3, ("mm.input_projection.weight",)),
    "idefics3": Family("idefics3", ("llama",), "<image>", 2, _idefics3),
}
KEYS = {  # after `clip.vision.` -> of vision_config
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "image_size": "image_size",
    "patch_size": "patch_size",
}


class Found(NamedTuple):
    """The larger model's config.json, its preprocessor_config.json, and of each tensor that it sees with the name
    there, the shape here, and whether its rows are columns there."""

    config: dict[str, Any]
    settings: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...], bool]]


def may_see(architecture: Any) -> bool:
    """Whether there may be a file that a text model of this architecture of GGUF sees with."""
    return any(architecture in family.texts for family in FAMILIES.values())


def read_images(
    metadata: Mapping[str, Any], shapes: Shapes, text: Mapping[str, Any], tokens: Any, source: str
) -> Found:
    """What a model sees with whose config.json is `text` and whose texts are of `tokens`. Raises FormatError for what
    is missing or of another shape, UnsupportedError for a model that is not known, settings that are not followed, and
    another model's tokens."""
    kind = metadata.get("clip.projector_type")
    if metadata.get("clip.has_vision_encoder") is not True or not isinstance(kind, str) or kind not in FAMILIES:
        what = f"sees with projector_type {str(kind)[:40]!r}" if kind else "is no file that a model sees with"
        raise UnsupportedError(f"{source}: {what}; supported are {', '.join(FAMILIES)}: give a model's mmproj file")
    if metadata.get("clip.use_gelu") is not True:
        raise UnsupportedError(f"{source}: has clip.use_gelu {metadata.get('clip.use_gelu')!r:.20}: not supported")
    family, values = FAMILIES[kind], _values(metadata, source)
    if not isinstance(tokens, list) or family.token not in tokens:
        what = f"the text model has no token {family.token}"
        raise UnsupportedError(f"{source}: {what}: give the mmproj file of that model")
    joined = values.get("projector.scale_factor", family.joined)
    if not all(isinstance(one, int) and one > 0 for one in (values["image_size"], values["patch_size"], joined)):
        raise FormatError(f"{source}: its sizes of images and patches are none: convert it again")
    more, settings = family.write(values, joined, tokens.index(family.token))
    config = {
        "model_type": family.model_type,
        "text_config": dict(text),
        "vision_config": {**{KEYS[key]: values[key] for key in KEYS}, "hidden_act": "gelu_pytorch_tanh"},
        **{key: text[key] for key in ("bos_token_id", "eos_token_id") if key in text},
        **more,
    }
    settings |= {key: _three(metadata, key, source) for key in ("image_mean", "image_std")}
    seen = images(config, source)
    assert seen is not None
    seen.preparation({"preprocessor_config.json": json.dumps(settings).encode()}, source)
    wanted = {name: tensor.shape for name, tensor in seen.tensors.items()}
    return Found(config, settings, _matched(shapes, wanted, family, source))


def _values(metadata: Mapping[str, Any], source: str) -> Values:
    found = {}
    for suffix in (*KEYS, "projector.scale_factor", "preproc_image_size"):
        key = f"clip.vision.{suffix}"
        if key in metadata:
            found[suffix] = number(metadata[key], key, source)
        elif suffix in KEYS:
            raise FormatError(f"{source}: has no {key}: convert it again")
    return found


def _three(metadata: Mapping[str, Any], name: str, source: str) -> list[float]:
    given = metadata.get(f"clip.vision.{name}")
    if not isinstance(given, list | array) or len(given) != 3:
        raise FormatError(f"{source}: clip.vision.{name} is {str(given)[:40]}, three numbers are needed")
    return [shortest(float(number(value, name, source))) for value in given]


def _matched(
    shapes: Shapes, wanted: Shapes, family: Family, source: str
) -> dict[str, tuple[str, tuple[int, ...], bool]]:
    """Where each of our tensors is. Older files call the two matrices of an MLP by each other's name."""
    down, up = "v.blk.0.ffn_down.weight", "v.blk.0.ffn_up.weight"
    swapped = shapes.get(down) == wanted[up] != wanted[down] and shapes.get(up) == wanted[down]
    found = {}
    for name, shape in wanted.items():
        theirs = name
        if swapped and ".ffn_" in name:
            theirs = name.replace("ffn_up", "ffn_down") if "ffn_up" in name else name.replace("ffn_down", "ffn_up")
        turned = name in family.turned
        there = shapes.get(theirs)
        if there is None:
            raise FormatError(f"{source}: has no tensor {theirs}: the file is incomplete, convert it again")
        flat = there if len(there) < 3 else (there[0], prod(there[1:]))  # of a patch's convolution
        if flat != (shape[::-1] if turned else shape):
            raise FormatError(
                f"{source}: tensor {theirs} is {list(there)}, which does not fit its metadata: convert it again"
            )
        found[name] = theirs, shape, turned
    known = {theirs for theirs, _, _ in found.values()}
    for name in shapes:
        if name.startswith((TOWER, PROJECTOR)) and name not in known:
            raise UnsupportedError(f"{source}: has {name[:80]}, which {family.model_type} is not computed with here")
    return found
