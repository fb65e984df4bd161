"""Checkpoints of 8-bit floats with a scale per block, as DeepSeek and Qwen publish them, or per row (FBGEMM).

    weight            F8_E4M3 [out, in]
    weight_scale_inv  F32, BF16 or F8_E8M0 [ceil(out / 128), ceil(in / 128)], with weight_block_size [128, 128], or [1]
    weight_scale      F32 [out, 1] in FBGEMM's

weight = float * scale; `inv` says that the weights were divided by it.
"""

from collections.abc import Mapping
from typing import Any

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import Packed, Scaled
from edgeq.errors import CheckpointError


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`."""
    block = config.get("weight_block_size")
    if block is not None and not (
        isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)
    ):
        raise CheckpointError(f"{source}: config.json: weight_block_size {block!r} is not two positive numbers")
    found: list[Packed] = []
    for name, tensor in files.tensors.items():
        if tensor.dtype != "F8_E4M3" or len(tensor.shape) != 2 or not name.endswith(".weight"):
            continue
        scale = next((s for s in (f"{name}_scale_inv", f"{name}_scale") if s in files.tensors), None)
        if scale is None:
            raise CheckpointError(f"{tensor.path}: tensor {name!r} has no scale: the checkpoint is incomplete")
        rows, columns = tensor.shape
        values = files.tensors[scale].shape
        if block and len(values) == 2:
            size = (block[0], block[1])
        else:
            size = (1, columns) if values[:1] == (rows,) else (rows, columns)
        found.append(Scaled(files, name, "FP8 8-bit", scale, size))
    return found
