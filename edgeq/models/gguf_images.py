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
from edgeq.models.tensors import Tensor
from edgeq.vision.proportional import BICUBIC
from edgeq.vision.tiling import LANCZOS
from edgeq.vision.whole import BILINEAR

Values = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


class Said(NamedTuple):
    """What a file says: its keys after `clip.vision.`, how many states of a row and of a column become one row of a
    text, the id of the token that stands for such, the tensors' shapes; and the text model's config.json."""

    values: Values
    joined: int
    token: int
    shapes: Shapes
    text: Mapping[str, Any]


class Family(NamedTuple):
    """A projector of llama.cpp's.

    model_type: of the larger model; texts: the architectures of GGUF that its text model may have
    token:  what stands in a text for each row of an image
    joined: how many states of a row and of a column become one row of a text, where no key says it
    write:  what a file says -> config.json's `vision_config`, its other keys, settings of images
    turned: tensors whose rows are columns there
    elsewhere: our tensors -> what they are called there, and which matrix of that one they are the first rows of
    gelu:   the file says that this is the activation
    """

    model_type: str
    texts: tuple[str, ...]
    token: str
    joined: int
    write: Callable[[Said], tuple[Values, Values, Values]]
    turned: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[str, int | None]] = {}
    gelu: bool = True


def _siglip(said: Said) -> Values:
    return {**{KEYS[key]: said.values[key] for key in KEYS}, "hidden_act": "gelu_pytorch_tanh"}


def _gemma3(said: Said) -> tuple[Values, Values, Values]:
    side, patch = said.values["image_size"], said.values["patch_size"]
    config = {"mm_tokens_per_image": (side // patch // said.joined) ** 2, "image_token_index": said.token}
    return _siglip(said), config, {"size": {"height": side, "width": side}, "resample": BILINEAR}


def _idefics3(said: Said) -> tuple[Values, Values, Values]:
    side = said.values["image_size"]
    longest = said.values.get("preproc_image_size", side)
    edges = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": side}}
    return _siglip(said), {"scale_factor": said.joined, "image_token_id": said.token}, {**edges, "resample": LANCZOS}


def _gemma4(said: Said) -> tuple[Values, Values, Values]:
    """Shapes say what no key does. Rows of an image see one another in models without a second embedding."""
    shapes, values = said.shapes, {KEYS[key]: said.values[key] for key in KEYS}
    places = shapes.get("v.position_embd.weight", ())
    keys, head_dim = (shapes.get(f"v.blk.0.attn_{name}.weight", (0,))[0] for name in ("k", "q_norm"))
    vision = {
        **{key: values[key] for key in values if key not in ("image_size", "layer_norm_eps")},
        "rms_norm_eps": values["layer_norm_eps"],
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": head_dim or 64,  # without these tensors the file is refused for that
        "num_key_value_heads": keys // (head_dim or 64) or values["num_attention_heads"],
        "pooling_kernel_size": said.joined,
        "position_embedding_size": places[1] if len(places) == 3 else SOFT_TOKENS * said.joined,
        "use_clipped_linears": "v.blk.0.attn_q.input_min" in shapes,
        "standardize": "v.std_bias" in shapes,
    }
    see = None if said.text.get("hidden_size_per_layer_input") else "vision"
    text = {**said.text, "use_bidirectional_attention": see}
    config = {"text_config": text, "image_token_id": said.token, "vision_soft_tokens_per_image": SOFT_TOKENS}
    sizes = {"patch_size": values["patch_size"], "pooling_kernel_size": said.joined, "max_soft_tokens": SOFT_TOKENS}
    return vision, config, {**sizes, "do_normalize": False, "resample": BICUBIC}


def _lfm2(said: Said) -> tuple[Values, Values, Values]:
    """Shapes say what no key does; how images are cut nothing says: as in all published models."""
    shapes = said.shapes
    patches = shapes.get("v.position_embd.weight", (1,))[0]
    config = {
        "downsample_factor": said.joined,
        "image_token_id": said.token,
        "projector_hidden_size": shapes.get("mm.1.weight", (1,))[0],
        "projector_hidden_act": "gelu",
        "projector_bias": "mm.1.bias" in shapes,
        "projector_use_layernorm": "mm.input_norm.weight" in shapes,
    }
    sizes = {"downsample_factor": said.joined, "encoder_patch_size": said.values["patch_size"]}
    vision = {**_siglip(said), "model_type": "siglip2_vision_model", "num_patches": patches}
    return vision, config, {**sizes, "resample": BILINEAR}


SOFT_TOKENS = 280  # of Gemma 4's images, at most
FAMILIES = {
    "gemma3": Family("gemma3", ("gemma3",), "<image_soft_token>", 4, _gemma3, ("mm.input_projection.weight",)),
    "gemma4v": Family(
        "gemma4",
        ("gemma4",),
        "<|image|>",
        3,
        _gemma4,
        elsewhere={
            "v.position_embd_x.weight": ("v.position_embd.weight", 0),
            "v.position_embd_y.weight": ("v.position_embd.weight", 1),
            "mm.std_bias": ("v.std_bias", None),
            "mm.std_scale": ("v.std_scale", None),
        },
        gelu=False,
    ),
    "idefics3": Family("idefics3", ("llama",), "<image>", 2, _idefics3),
    "lfm2": Family("lfm2_vl", ("lfm2",), "<image>", 2, _lfm2),
}
HEARS = "mm.a."  # what tensors between an encoder of sound and a text begin with
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
    """The larger model's config.json, its preprocessor_config.json, and where the tensors are that it sees with."""

    config: dict[str, Any]
    settings: dict[str, Any]
    tensors: "dict[str, There]"


class There(NamedTuple):
    """A tensor in the file.

    name: there; shape: here
    turned: its rows are columns there
    of:     the shape of the matrix there whose rows it has from row `first` on
    bound:  see Tensor
    """

    name: str
    shape: tuple[int, ...]
    turned: bool
    of: tuple[int, ...]
    first: int
    bound: bool


def may_see(architecture: Any, has: Callable[[str], bool]) -> bool:
    """Whether there may be a file that a text model of this architecture of GGUF sees with: it has a token for that."""
    return any(architecture in family.texts and has(family.token) for family in FAMILIES.values())


def read_images(
    metadata: Mapping[str, Any], shapes: Shapes, text: Mapping[str, Any], tokens: Any, source: str
) -> Found:
    """What a model sees with whose config.json is `text` and whose texts are of `tokens`. Raises FormatError for what
    is missing or of another shape, UnsupportedError for a model that is not known, settings that are not followed, and
    another model's tokens."""
    kind = metadata.get("clip.vision.projector_type", metadata.get("clip.projector_type"))
    if metadata.get("clip.has_vision_encoder") is not True or not isinstance(kind, str) or kind not in FAMILIES:
        what = f"sees with projector_type {str(kind)[:40]!r}" if kind else "is no file that a model sees with"
        raise UnsupportedError(f"{source}: {what}; supported are {', '.join(FAMILIES)}: give a model's mmproj file")
    family = FAMILIES[kind]
    if metadata.get("clip.use_gelu", not family.gelu) is not True or metadata.get("clip.use_silu"):
        raise UnsupportedError(f"{source}: has clip.use_gelu {metadata.get('clip.use_gelu')!r:.20}: not supported")
    values = _values(metadata, source)
    if not isinstance(tokens, list) or family.token not in tokens:
        what = f"the text model has no token {family.token}"
        raise UnsupportedError(f"{source}: {what}: give the mmproj file of that model")
    joined = values.get("projector.scale_factor", family.joined)
    if not all(isinstance(one, int) and one > 0 for one in (values["image_size"], values["patch_size"], joined)):
        raise FormatError(f"{source}: its sizes of images and patches are none: convert it again")
    vision, more, settings = family.write(Said(values, joined, tokens.index(family.token), shapes, text))
    config = {
        "model_type": family.model_type,
        "text_config": dict(text),
        "vision_config": vision,
        **{key: text[key] for key in ("bos_token_id", "eos_token_id") if key in text},
        **more,
    }
    settings |= {key: _three(metadata, key, source) for key in ("image_mean", "image_std")}
    normed = settings["image_mean"] + settings["image_std"]
    if not settings.get("do_normalize", True) and normed != [0.0] * 3 + [1.0] * 3:
        raise UnsupportedError(f"{source}: has image_mean and image_std {normed}, which are not followed")
    seen = images(config, source)
    assert seen is not None
    seen.preparation({"preprocessor_config.json": json.dumps(settings).encode()}, source)
    return Found(config, settings, _matched(shapes, seen.tensors, family, source))


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


def _matched(shapes: Shapes, wanted: Mapping[str, Tensor], family: Family, source: str) -> dict[str, There]:
    """Where each of our tensors is. Older files call the two matrices of an MLP by each other's name."""
    down, up = "v.blk.0.ffn_down.weight", "v.blk.0.ffn_up.weight"
    swapped = shapes.get(down) == wanted[up].shape != wanted[down].shape and shapes.get(up) == wanted[down].shape
    found = {}
    for name, tensor in wanted.items():
        theirs, index = family.elsewhere.get(name, (name, None))
        if swapped and ".ffn_" in name:
            theirs = name.replace("ffn_up", "ffn_down") if "ffn_up" in name else name.replace("ffn_down", "ffn_up")
        there = shapes.get(theirs)
        if there is None:
            raise FormatError(f"{source}: has no tensor {theirs}: the file is incomplete, convert it again")
        turned, first = name in family.turned, 0
        of = shape = tensor.shape[::-1] if turned else tensor.shape
        flat = there if len(there) < 3 else (there[0], prod(there[1:]))  # of a patch's convolution
        if index is not None and len(there) == 3 and index < there[0] and there[1] >= shape[0]:
            of, first = (there[0] * there[1], there[2]), index * there[1]
            flat = shape[0], there[2]
        if flat != shape:
            what = f"tensor {theirs} is {list(there)}, which does not fit its metadata, or not the text model"
            raise FormatError(f"{source}: {what}: give the mmproj file of that model")
        found[name] = There(theirs, tensor.shape, turned, of, first, tensor.bound)
    known = {there.name for there in found.values()}
    for name in shapes:
        if name.startswith((TOWER, PROJECTOR)) and name not in known and not name.startswith(HEARS):
            raise UnsupportedError(f"{source}: has {name[:80]}, which {family.model_type} is not computed with here")
    return found
