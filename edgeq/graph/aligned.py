"""Memory for buffers and caches: zeroed, aligned to cache lines, committed by the system only where it is touched."""

import numpy as np

ALIGNMENT = 64


def aligned(nbytes: int) -> np.ndarray:
    """`nbytes` zero bytes at an address that is a multiple of 64."""
    memory = np.zeros(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def bits(value: float) -> int:
    """An f32 as kernels' argument blocks carry it."""
    return int(np.float32(value).view(np.int32))


def aligned_copy(data: np.ndarray) -> np.ndarray:
    """The bytes u8 of `data` where kernels can read them."""
    memory = aligned(data.nbytes)
    memory[:] = data
    return memory
