"""Checkpoints of torchao as transformers 5 saves them: a tensor's parts beside one another in safetensors, what they
are in the file's metadata, `out` rows and `in` columns:

    MODULE._weight_qdata             I8 or F8_E4M3 [out, in]; of MX and NVFP4 tensors of 4 bits U8 [out, in / 2]
    MODULE._weight_scale             a float [1], [out, 1] or [out, in / group]; of MX tensors exponents
    MODULE._weight_zero_point        I8 like the scales
    MODULE._weight_per_tensor_scale  F32 [1], of NVFP4

    metadata: MODULE.weight -> JSON with `_type`, the class of the tensor, and its attributes in `_data`

weight = scale * (code - zero point). Layouts for one kind of accelerator, and tensors with scales for what is
multiplied by them, are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from edgeq.blocks import nvfp4
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats, factor_in
from edgeq.checkpoints.packed import GROUP, Packed, Scaled, matrix_shape
from edgeq.checkpoints.safetensors_index import metadata_of
from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.system.json_input import parse_json

CODES = "._weight_qdata"
KINDS = {"Int8Tensor": "INT8", "Float8Tensor": "FP8", "IntxUnpackedToInt8Tensor": "INT", "MXTensor": "MXFP8"}
KINDS |= {"NVFP4Tensor": "NVFP4"}
METHOD = "torchao"


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for a class of tensors that is
    not known here."""
    found = [name for name in files.tensors if name.endswith(CODES)]
    if not found:
        raise UnsupportedError(
            f"{source}: has no torchao tensors in safetensors: save it with transformers 5, or convert the original"
        )
    about: dict[str, dict[str, Any]] = {}
    for path in sorted({files.tensors[name].path for name in found}):
        about[path] = metadata_of(path)
    return [_matrix(files, name.removesuffix(CODES), about[files.tensors[name].path], source) for name in found]


def _matrix(files: Files, stem: str, about: Mapping[str, Any], source: str) -> Packed:
    name, codes, scale = f"{stem}.weight", stem + CODES, f"{stem}._weight_scale"
    kind, data = _described(files.tensors[codes].path, name, about)
    if kind not in KINDS:
        what = f"{name} is a {kind[:60]}, a layout of torchao's that is not supported"
        raise UnsupportedError(f"{source}: {what}: {', '.join(KINDS)} are")
    if f"{stem}._weight_act_pre_scale" in files.tensors or data.get("is_swizzled_scales"):
        what = "scales in another order" if data.get("is_swizzled_scales") else "scales for what it is multiplied by"
        raise UnsupportedError(f"{source}: {name}: torchao's {kind} with {what} is not supported")
    if scale not in files.tensors:
        raise CheckpointError(f"{files.tensors[codes].path}: has no tensor {scale!r}: the checkpoint is incomplete")
    if kind == "NVFP4Tensor":
        whole = f"{stem}._weight_per_tensor_scale"
        there = whole in files.tensors
        times = factor_in(files, whole, codes) if there else 1.0
        return FourBitFloats(files, name, METHOD, codes, scale, nvfp4.SHARING, times, others=(whole,) if there else ())
    if kind == "MXTensor" and files.tensors[codes].dtype == "U8":
        return FourBitFloats(files, name, METHOD, codes, scale, GROUP)
    rows, columns = matrix_shape(files, codes, codes)
    zeros, grid = f"{stem}._weight_zero_point", files.tensors[scale].shape
    if len(grid) == 2 and all(grid):
        block = -(-rows // grid[0]), -(-columns // grid[1])
    else:
        block = (1, columns) if grid == (rows,) and rows > 1 else (rows, columns)
    bits = _bits(data)
    said = f"{METHOD} {KINDS[kind]}{bits if kind.startswith('Intx') else ''}"
    return Scaled(files, name, said, scale, block, zeros if zeros in files.tensors else "", codes=codes, bits=bits)


def _described(path: str, name: str, about: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The class of a tensor, and its attributes."""
    try:
        found = parse_json(str(about.get(name, "")).encode())
        return str(found["_type"]), found["_data"] if isinstance(found["_data"], Mapping) else {}
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: its metadata does not say what {name!r} is: save the model again") from None


def _bits(data: Mapping[str, Any]) -> int:
    """Of its codes: what `target_dtype` says, `int4`, or 8."""
    target = data.get("target_dtype")
    target = target.get("_data") if isinstance(target, Mapping) else None
    digits = str(target).removeprefix("int")
    return int(digits) if digits in ("1", "2", "3", "4", "5", "6", "7") else 8
