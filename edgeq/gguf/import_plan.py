"""What an import makes of each tensor of a GGUF file, and what it refuses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import block_type
from edgeq.container.gguf_reader import GgufFile, GgufTensor
from edgeq.container.header import TENSOR_NAME
from edgeq.container.writer import TensorSpec
from edgeq.errors import FormatError, UnsupportedError
from edgeq.gguf import nvfp4_scales
from edgeq.gguf.row_order import pieces_of, rotated_heads
from edgeq.models import Architecture
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_places import FUSED, Place, places, split, turns
from edgeq.models.image_tower import TOWER
from edgeq.models.matrix import layer_past_the_last
from edgeq.models.rows_in import AXES

NAMED = 20  # tensors that are told one by one
EXACT, WIDENED, ROUNDED = "exact", nvfp4_scales.EXACT, nvfp4_scales.ROUNDED
TURNED = "turned, rounded to F16"

PLAIN = ("F32", "F16", "BF16")
# Matrices that are not multiplied as others are
AS_F32 = ("shortconv.conv", "ssm_conv1d", "ssm_a", "position_embd", *AXES, "token_types")


@dataclass(frozen=True)
class Job:
    """One tensor: what it is made from, what it becomes and how. `first`: where its rows begin in each matrix that it
    is made from. `heads` that its rows are of, where these must be re-ordered, else 0. `pieces`: in how many its rows
    lie, one in each of so many equal parts of the matrix, if that is not one. `factors`: of NVFP4, what each matrix is
    multiplied by; `error`: how far its scales are rounded, of all of them (RMS). `turned`: its rows are columns there,
    piece by piece. `bound`: see Tensor."""

    tensor: GgufTensor
    spec: TensorSpec
    how: str
    first: int = 0
    heads: int = 0
    pieces: int = 1
    factors: npt.NDArray[np.float32] | None = None
    error: float = 0.0
    turned: bool = False
    bound: bool = False

    @property
    def of_piece(self) -> int:
        """Rows there that it has of each piece."""
        return self.spec.shape[-1] if self.turned else self.rows // self.pieces

    @property
    def rows(self) -> int:
        """Of each matrix; values of a vector."""
        return self.spec.shape[-2] if len(self.spec.shape) > 1 else self.spec.shape[0]

    @property
    def comes_back(self) -> bool:
        """Whether it has another type here than there, and an export can write its own blocks again."""
        same = self.how not in (ROUNDED, TURNED) and (self.factors is None or bool((self.factors == 1).all()))
        return same and self.tensor.type.name != self.spec.type

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return self.tensor.nbytes * prod(self.spec.shape) // prod(self.tensor.shape)


def plan(file: GgufFile, model: Architecture, entry: GgufArchitecture, layers: int) -> tuple[list[Job], list[str]]:
    """The tensors to write, in the file's order, and what is said of those that the model does not use; those of more
    than so many layers are refused."""
    expected = {name: tensor.shape for name, tensor in model.tensors.items()}
    known_places = {place.name: place for place in places(list(expected), entry, fused_tensors(file, model))}
    for place in known_places.values():
        _check(file, place, expected, model.heads.num_attention_heads)
    if surplus := layer_past_the_last(file.tensors, layers):
        what = f"tensor {surplus[:80]!r} belongs to no layer: block_count is {layers}"
        raise FormatError(f"{file.path}: {what}: convert the model again, or download it again")
    factors = nvfp4_scales.factors(file)
    jobs: list[Job] = []
    left_out: list[str] = []
    for tensor in file.tensors.values():
        if tensor.name in factors:
            continue
        found = known_places.get(tensor.name)
        if found is None and tensor.name in expected:
            raise FormatError(f"{file.path}: has {tensor.name} beside the tensor that holds it: convert it again")
        if found is None and tensor.name.endswith((".bias", ".scale")):
            raise UnsupportedError(f"{file.path}: has {tensor.name}, which {model.name} is not computed with here")
        try:
            if found is None and not TENSOR_NAME.match(tensor.name):
                raise UnsupportedError("a name that an .eqf file cannot have")
            jobs += _jobs(file, tensor, found or Place(tensor.name, (tensor.name,)), expected, model, entry, factors)
        except UnsupportedError as error:
            if found:
                raise
            left_out.append(f"left out, as the model does not use it: {tensor.name[:80]} ({error})")
    if len(left_out) > NAMED:
        left_out[NAMED:] = [f"{len(left_out) - NAMED} more tensors are left out, as the model does not use them"]
    if errors := [job.error for job in jobs if job.error]:
        what = f"NVFP4 scales are rounded in {len(errors)} tensor{'s' * (len(errors) > 1)}"
        left_out.append(f"{what}, RMS error up to {max(errors):.2%} of the weights")
    return jobs, left_out


def fused_tensors(file: GgufFile, model: Architecture) -> list[str]:
    """Tensors of FUSED that this file has instead of ours."""
    here = {split(name)[1] for name in file.tensors}
    wanted = {split(name)[1] for name in model.tensors}
    return [whole for whole, ours in FUSED if whole in here and ours[0] not in here and wanted.issuperset(ours)]


def _check(file: GgufFile, place: Place, expected: Mapping[str, tuple[int, ...]], attending: int) -> None:
    """FormatError if the file's tensor is missing or has another shape than the model's have together."""
    if place.name not in file.tensors:
        old = place.name.replace("_exps.", ".0.")  # the first expert's own, before 2024-04
        if old != place.name and old in file.tensors:
            raise UnsupportedError(
                f"{file.path}: has a tensor per expert, like {old}, an old layout: convert the model again, or take a "
                "newer file"
            )
        raise FormatError(f"{file.path}: has no tensor {place.name}: the file is incomplete, convert the model again")
    shapes = [place.shape_there(part, expected[part], attending) for part in place.parts]
    axis = max(len(shapes[0]) - 2, 0)
    shape = (*shapes[0][:axis], sum(one[axis] for one in shapes), *shapes[0][axis + 1 :])
    has = file.tensors[place.name].shape
    if has != shape and not (place.flat and prod(has) == prod(shape)):
        what = f"tensor {place.name} is {list(has)}, its metadata says {list(shape)}"
        raise FormatError(f"{file.path}: {what}: convert it again")


def _jobs(
    file: GgufFile,
    tensor: GgufTensor,
    place: Place,
    expected: Mapping[str, tuple[int, ...]],
    model: Architecture,
    entry: GgufArchitecture,
    factors: dict[str, npt.NDArray[np.float32]],
) -> Iterator[Job]:
    """A tensor, or those that it holds one after the other."""
    first = 0
    error = 0.0
    factor = nvfp4_scales.factor_of(tensor, factors) if tensor.type.name == nvfp4_scales.NAME else None
    for name in place.parts:
        shape = expected.get(name, tensor.shape)
        if place.flat:
            tensor = replace(tensor, shape=(len(place.parts) * shape[0], *shape[1:]))
        kind, how = held(file, tensor, name)
        heads = rotated_heads(name, entry, model.heads.num_attention_heads, model.heads.num_key_value_heads)
        pieces = pieces_of(place, model) if place.woven else 1
        if factor is not None:
            error = nvfp4_scales.error_of(file, tensor, factor)
            how = ROUNDED if error else WIDENED
        turned = turns(place.name, name)
        if turned and kind not in PLAIN:
            kind, how = "F16", TURNED
        job = Job(tensor, TensorSpec(name, shape, kind), how, first, heads, pieces, factor, error, turned)
        yield job
        first += job.of_piece


def held(file: GgufFile, tensor: GgufTensor, name: str) -> tuple[str, str]:
    """The type that a tensor gets here, where it is `name`, and how. UnsupportedError if it cannot be held."""
    where, kind = f"{file.path}: tensor {tensor.name}", tensor.type
    if len(tensor.shape) > 3:
        raise UnsupportedError(f"{where} has {len(tensor.shape)} dimensions, one to three are possible")
    if len(tensor.shape) == 1:
        if kind.name not in ("F32", "F16", "BF16"):
            raise UnsupportedError(f"{where} is a vector of type {kind.name}: F32, F16, BF16 are possible")
        return "F32", EXACT if kind.name == "F32" else WIDENED
    if not kind.held:
        raise UnsupportedError(f"{where} has type {kind.name}, which cannot be held: take another quantization")
    if not block_type(kind.held).accepts(tensor.shape[-1]):
        raise UnsupportedError(f"{where} has rows of {tensor.shape[-1]}, no multiple of 32: take an F16 file")
    if split(name)[1].removeprefix(TOWER) in AS_F32 and kind.name != "F32":
        raise UnsupportedError(f"{where} has type {kind.name}, it must be F32: convert the model again")
    return kind.held, EXACT if kind.native else WIDENED
