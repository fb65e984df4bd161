"""Experts that mlx-lm has stacked in one tensor, `...switch_mlp.gate_proj.weight` [experts, ...], as tensors of their
own under the names of the original checkpoint."""

import re
from collections.abc import Mapping
from dataclasses import replace

from edgeq.checkpoints.stored import ELEMENTS, Stored

STACKED = ".switch_mlp."
MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def stack_of(module: str) -> str:
    """What mlx-lm calls the stack that an expert's module lies in; the name of any other module as it is."""
    found = re.fullmatch(r"(.*)\.experts\.\d+\.(\w+)", module)
    if found is None:
        return module
    names = {original: stacked for stacked, original in MIXTRAL.items()}
    return f"{found[1]}{STACKED}{names.get(found[2], found[2])}"


def experts_apart(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors by name, each expert's in the place of a stack of them."""
    found: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        module, stacked, rest = name.partition(STACKED)
        if not stacked or len(tensor.shape) < 2 or tensor.dtype not in ELEMENTS:
            found[name] = tensor
            continue
        matrix, _, part = rest.partition(".")
        if module.endswith("block_sparse_moe"):
            matrix = MIXTRAL.get(matrix, matrix)
        step = tensor.strides[0] * ELEMENTS[tensor.dtype].itemsize
        for expert in range(tensor.shape[0]):
            own = f"{module}.experts.{expert}.{matrix}.{part}"
            offset = tensor.offset + expert * step
            found[own] = replace(tensor, name=own, shape=tensor.shape[1:], strides=tensor.strides[1:], offset=offset)
    return found
