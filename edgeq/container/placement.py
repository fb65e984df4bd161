"""Where everything lies in a `.eqf` file, known from names, shapes and types alone.

Source of the layout: `formats/container.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.blocks.table import block_type, tensor_bytes
from edgeq.errors import UnsupportedError

MAGIC = bytes((0x89, 0x45, 0x51, 0x46, 0x0D, 0x0A, 0x1A, 0x0A))
VERSION, REQUIRING = 2, 3  # of a file that requires no feature of its reader, and of one that does
PREFIX = "<8sIQI"  # magic, version, header bytes, header crc32
PREFIX_BYTES = 24
ALIGNMENT = 64  # of every tensor and asset: one cache line, one line of panel codes
# Of the first tensor: a multiple of the 4 KiB pages of x86, the 16 KiB pages of Apple and Raspberry Pi 5 kernels and
# the 64 KiB pages of some AArch64 servers, so that the section can be mapped by itself everywhere.
PAGE = 65536
MAX_HEADER_BYTES = 64 << 20
LEAST_SCALE, MOST_SCALE = 2.0**-100, 2.0**100  # of activations: what divides by them stays finite


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: GGUF's name, shape ([outputs, inputs], [experts, outputs, inputs], or [n] for a vector)
    and block type; of a type whose rows have one scale perhaps that of all activations, see `activation_refusal`."""

    name: str
    shape: tuple[int, ...]
    type: str
    activation_scale: float | None = None


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: as its TensorSpec, with its place (bytes from the file's start) and zlib's crc32."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int
    crc32: int
    activation_scale: float | None = None


@dataclass(frozen=True)
class AssetInfo:
    """A whole small file kept in the container (`tokenizer.json`, ...): its place and zlib's crc32."""

    name: str
    offset: int
    nbytes: int
    crc32: int


def activation_refusal(kind: str, scale: float) -> str:
    """Why a tensor of this block type cannot have this scale of the activations that it reads; empty if it can."""
    if not block_type(kind).per_row:
        return f"{kind} takes no scale of activations, only types whose rows have one scale do"
    if not LEAST_SCALE <= scale <= MOST_SCALE:
        return f"its scale of activations, {scale:g}, does not lie between 2**-100 and 2**100"
    return ""


def align(offset: int, step: int = ALIGNMENT) -> int:
    """The first multiple of `step` at or after `offset`."""
    return -(-offset // step) * step


def place(
    tensors: Sequence[TensorSpec], assets: Mapping[str, bytes], start: int
) -> tuple[list[TensorInfo], list[AssetInfo], int]:
    """Lay tensors, then assets, one after another from `start`; checksums are 0. Also returns the file's bytes.

    UnsupportedError if a tensor's type is unknown, cannot hold its shape, or takes no such scale of activations.
    """
    for spec in tensors:
        if spec.activation_scale is not None and (what := activation_refusal(spec.type, spec.activation_scale)):
            raise UnsupportedError(f"tensor {spec.name}: {what}")
    placed: list[TensorInfo] = []
    kept: list[AssetInfo] = []
    end = start
    for spec in tensors:
        offset, nbytes = align(end), tensor_bytes(spec.type, spec.shape)
        placed.append(TensorInfo(spec.name, spec.shape, spec.type, offset, nbytes, 0, spec.activation_scale))
        end = offset + nbytes
    for name, content in assets.items():
        offset = align(end)
        kept.append(AssetInfo(name, offset, len(content), 0))
        end = offset + len(content)
    return placed, kept, end
