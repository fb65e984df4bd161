"""What an export makes of each tensor, and what GGUF cannot hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from edgeq.blocks.gguf_decode import can_narrow
from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.reference import encode, to_gguf
from edgeq.blocks.table import BLOCK_TYPES, GROUP, block_type
from edgeq.container.gguf_writer import GgufSpec
from edgeq.container.reader import File, TensorInfo
from edgeq.errors import UnsupportedError
from edgeq.gguf.export_metadata import recorded
from edgeq.gguf.import_plan import PLAIN
from edgeq.models.gguf_places import KV_B, Place, split

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fallback:
    """What becomes of matrices that GGUF cannot hold: the block type's replacement in GGUF, and its encoder, which
    gives u8 [rows, row_bytes] of f32 [rows, cols]."""

    types: Mapping[str, str]
    encode: Callable[[npt.NDArray[np.float32], str], Bytes]


def _encode(weights: npt.NDArray[np.float32], name: str) -> Bytes:
    rows, cols = weights.shape
    return to_gguf(encode(weights, name), rows, cols, name).reshape(rows, -1)


# Types whose blocks in GGUF are wider than rows need be, or that it has not
AS_Q8_0 = Fallback({bt.name: "Q8_0" for bt in BLOCK_TYPES.values() if bt.gguf_columns not in (1, GROUP)}, _encode)


@dataclass(frozen=True)
class Exported:
    """A tensor as it was written, of which of ours; `again` if weights had to be encoded again; `pieces` if rows of
    these take turns, in how many. Its first row is `repeated` so often at its end."""

    name: str
    shape: tuple[int, ...]
    type: str
    parts: tuple[str, ...]
    again: bool = False
    pieces: int = 1
    repeated: int = 0


def target(file: File, place: Place, fallback: Fallback | None, groups: int = 1, heads: int = 1) -> Exported:
    """How a tensor is written; `groups` are those of norms in Mamba layers, `heads` those of an attention.
    UnsupportedError if GGUF cannot hold it as it is and there is no fallback for that."""
    infos = [file.tensors[part] for part in place.parts]
    shape, axis = infos[0].shape, max(len(infos[0].shape) - 2, 0)
    shapes = [place.shape_there(info.name, info.shape, heads) for info in infos]
    shape = (*shapes[0][:axis], sum(one[axis] for one in shapes), *shapes[0][axis + 1 :])
    if len(shape) == 1:
        original = recorded(file, "types", dict, {}).get(infos[0].name, "F32")
        if place.folded is not None:
            shape = (*place.folded, shape[0] // prod(place.folded))
        elif place.flat:
            layer, stem, suffix = split(infos[0].name)
            if suffix == ".bias":
                rows = file.tensors[infos[0].name.removesuffix("bias") + "weight"].shape[0]
            elif stem in ("attn_q_norm", "attn_k_norm"):  # a row for each head
                rows = shape[0] * heads // file.tensors[f"{layer}attn_q.weight"].shape[0]
            else:
                rows = groups if stem == "ssm_norm" else shape[0]
            shape = (rows, shape[0] // rows)
        return Exported(place.name, shape, original if original in ("F16", "BF16") else "F32", place.parts)
    if split(place.name)[1] == KV_B:
        return _woven(file, place, infos, shape, fallback)
    types = [_writable(file, info, fallback) for info in infos]
    widest = max(types, key=lambda name: BY_NAME[name].row_bytes(shape[-1]))
    if len(set(types)) > 1 and fallback is None:
        what = f"GGUF has {' and '.join(place.parts)} as one tensor, these are {', '.join(types)}"
        raise UnsupportedError(f"{file.path}: {what}: --fallback encodes them again")
    again = any(info.type != widest and not can_narrow(info.type, widest) for info in infos)
    if place.flat and len(place.parts) > 1:
        shape = (len(place.parts), shape[0] // len(place.parts), shape[1])
    elif place.flat:  # a vector there, or matrices of heads
        shape = shape[1:] if shape[0] == 1 else (heads, shape[0] // heads, shape[1])
    return Exported(place.name, shape, widest, place.parts, again)


def _woven(
    file: File, place: Place, infos: Sequence[TensorInfo], shape: tuple[int, ...], fallback: Fallback | None
) -> Exported:
    """Keys and values of latent attention's heads: blocks along rows are none along columns."""
    types = {info.type for info in infos}
    kind = types.pop() if len(types) == 1 and types <= {*PLAIN} else "F16"
    again = any(info.type != kind for info in infos)
    if again and fallback is None:
        what = f"GGUF has {' and '.join(place.parts)} as one tensor, the first turned"
        raise UnsupportedError(f"{file.path}: {what}: --fallback encodes them again, as {kind}")
    return Exported(place.name, shape, kind, place.parts, again)


def empty(name: str, shape: tuple[int, ...], targets: Sequence[Exported]) -> tuple[GgufSpec, int]:
    """A tensor of zeros, and its bytes: of the type that one with such rows has in a layer, or F32."""
    alike = (one for one in targets if split(one.name)[1] == split(name)[1] and one.shape[-1] == shape[-1])
    kind = next((one.type for one in alike), "F32")
    return GgufSpec(name, shape, kind), prod(shape[:-1]) * BY_NAME[kind].row_bytes(shape[-1])


def longer(tensor: Exported, added: Mapping[str, int]) -> Exported:
    """With the rows that are added to it."""
    rows = added.get(tensor.name, 0)
    return replace(tensor, shape=(tensor.shape[0] + rows, *tensor.shape[1:]), repeated=rows) if rows else tensor


def _writable(file: File, info: TensorInfo, fallback: Fallback | None) -> str:
    """The type of a matrix in GGUF."""
    original = recorded(file, "types", dict, {}).get(info.name, "")
    if can_narrow(info.type, original):
        return str(original)
    try:
        block_type(info.type).gguf_bytes(*info.shape[-2:])
    except UnsupportedError as error:
        if fallback is None or info.type not in fallback.types:
            raise UnsupportedError(f"{file.path}: {info.name}: {error}: --fallback encodes it again") from None
        return fallback.types[info.type]
    return info.type
