"""Checkpoints of AMD's Quark, `out` rows and `in` columns:

    weight             F8_E4M3 or I8 [out, in]; of MXFP4 U8 [out, in / 2], codes of E2M1, the low nibble first
    weight_scale       a float [1], [out] or [out, in / group]; of MXFP4 U8 [out, in / 32], exponents + 127
    weight_zero_point  I8 like the scales, or missing

weight = scale * (code - zero point). Integers of 4 bits, packed in an order that has changed between versions, and
others are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats
from edgeq.checkpoints.packed import GROUP, Packed, scaled_matrix
from edgeq.errors import UnsupportedError

METHOD = "Quark"
NARROW = {"F8_E4M3": "FP8", "I8": "INT8"}


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for other elements."""
    found: list[Packed] = []
    for name, tensor in files.tensors.items():
        scale = f"{name}_scale"
        if not name.endswith(".weight") or scale not in files.tensors:
            continue
        if tensor.dtype in NARROW:
            found.append(scaled_matrix(files, name, f"{METHOD} {NARROW[tensor.dtype]}"))
        elif tensor.dtype == "U8" and files.tensors[scale].dtype == "U8" and _element(config) == "fp4":
            found.append(FourBitFloats(files, name, METHOD, name, scale, GROUP))
        else:
            what = f"{name} is {tensor.dtype}, elements {_element(config)[:40] or 'unknown'}"
            raise UnsupportedError(f"{source}: {what}: Quark's fp8_e4m3, int8 and MXFP4 (fp4) are supported")
    return found


def _element(config: Mapping[str, Any]) -> str:
    """What config.json calls the elements of weights."""
    weight: Any = config.get("global_quant_config")
    weight = weight.get("weight") if isinstance(weight, Mapping) else None
    if isinstance(weight, list) and weight:
        weight = weight[0]
    return str(weight.get("dtype")) if isinstance(weight, Mapping) else ""
