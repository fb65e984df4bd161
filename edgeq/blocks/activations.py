"""The NumPy twin of how activations are quantized (kernels/pack_rows.py)."""

import numpy as np

_SMALLEST = np.float32(1e-30)  # below, 127 / max would overflow; such a group is zero


def quantized_rows(x: np.ndarray, scale: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """[tokens, columns] f32 -> int8 codes [tokens, columns], f32 scales [tokens]: each one's own, or that given."""
    x = x.astype(np.float32)
    largest = np.abs(x).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if scale:
            given = np.float32(scale)
            inverse, scales = np.full_like(largest, np.float32(1) / given), np.where(np.isnan(largest), largest, given)
        else:
            tiny = largest < _SMALLEST
            inverse = np.where(tiny, np.float32(0), np.float32(127) / largest).astype(np.float32)
            scales = np.where(tiny, np.float32(0), largest / np.float32(127)).astype(np.float32)
        codes = np.nan_to_num(np.rint(np.clip(x * inverse[:, None], -127, 127)), nan=0.0)
    return codes.astype(np.int8), scales


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[tokens, columns] f32 -> int8 codes [tokens, columns], f32 scales [tokens, columns / 32]."""
    groups = x.astype(np.float32).reshape(x.shape[0], -1, 32)
    largest = np.abs(groups).max(axis=2)
    tiny = largest < _SMALLEST
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(tiny, np.float32(0), np.float32(127) / largest).astype(np.float32)
        codes = np.nan_to_num(np.rint(groups * inverse[:, :, None]), nan=0.0)
    scales = np.where(tiny, np.float32(0), largest / np.float32(127)).astype(np.float32)
    return codes.astype(np.int8).reshape(x.shape), scales
