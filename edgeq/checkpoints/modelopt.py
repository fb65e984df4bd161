"""Checkpoints of NVIDIA's ModelOpt (`export_hf_checkpoint`), `out` rows and `in` columns:

    weight          U8 [out, in / 2]      of NVFP4: codes of E2M1, two a byte, the low nibble first
                    F8_E4M3 [out, in]     of FP8 and MXFP8
    weight_scale    F8_E4M3 [out, in / 16] of NVFP4; F32 [1], [out] or a grid of blocks of FP8; U8 [out, in / 32], an
                    exponent + 127, of MXFP8
    weight_scale_2  F32 [1]               of NVFP4

weight = E2M1[code] * weight_scale * weight_scale_2, or float * weight_scale. Scales of inputs that are divided out of a
matrix's columns (`pre_quant_scale`, AWQ's) are refused.
"""

from collections.abc import Mapping
from typing import Any

from edgeq.blocks import nvfp4
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats, factor_in
from edgeq.checkpoints.packed import Packed, scaled_matrix
from edgeq.errors import UnsupportedError

METHOD = "ModelOpt"


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`, or `hf_quant_config.json`. UnsupportedError for
    another layout."""
    algorithm = config.get("quant_algo") or _quantization(config).get("quant_algo")
    found: list[Packed] = []
    for name, tensor in files.tensors.items():
        scale, second = f"{name}_scale", f"{name}_scale_2"
        if not name.endswith(".weight") or scale not in files.tensors:
            continue
        if f"{name.removesuffix('weight')}pre_quant_scale" in files.tensors:
            what = "whose inputs are scaled column by column (pre_quant_scale)"
            raise UnsupportedError(f"{source}: {name}: ModelOpt's matrices {what} are not supported")
        if tensor.dtype == "U8" and second in files.tensors:
            times = factor_in(files, second, name)
            found.append(FourBitFloats(files, name, METHOD, name, scale, nvfp4.SHARING, times, others=(second,)))
        elif tensor.dtype == "F8_E4M3" and second not in files.tensors:
            found.append(scaled_matrix(files, name, f"{METHOD} FP8"))
        else:
            what = f"{name} is {tensor.dtype}, of {str(algorithm)[:40]}"
            raise UnsupportedError(f"{source}: {what}: ModelOpt's NVFP4, FP8 and MXFP8 are supported")
    return found


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("quantization")
    return inner if isinstance(inner, Mapping) else {}
