"""What the gguf package says of GGUF's types, and ggml-common.h of what it does not know yet."""

from enum import IntEnum

import gguf
import numpy as np


class Later(IntEnum):
    """Types that it has no number of."""

    Q2_0 = 42


gguf.GGML_QUANT_SIZES.setdefault(Later.Q2_0, (64, 18))


def type_of(name: str) -> IntEnum:
    """A type as the package's writer takes it."""
    return Later[name] if name in Later.__members__ else gguf.GGMLQuantizationType[name]


def sizes(name: str) -> tuple[int, int]:
    """Columns and bytes of a block."""
    return gguf.GGML_QUANT_SIZES[type_of(name)]


def dequantize(blocks: np.ndarray, name: str) -> np.ndarray:
    """f32 [rows, columns] of blocks u8 [rows, bytes]."""
    with np.errstate(all="ignore"):
        if name not in ("Q1_0", "Q2_0"):
            return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
        columns, nbytes = sizes(name)
        weights = []
        for block in blocks.reshape(-1, nbytes):
            d, bits = np.float32(block[:2].view("<f2")[0]), int.from_bytes(block[2:].tobytes(), "little")
            if name == "Q1_0":
                numbers = [1 if bits >> i & 1 else -1 for i in range(columns)]
            else:
                numbers = [(bits >> 2 * i & 3) - 1 for i in range(columns)]
            weights.append(d * np.array(numbers, np.float32))
        return np.concatenate(weights).reshape(len(blocks), -1)
