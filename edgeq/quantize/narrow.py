"""Weights that a type cannot hold: its f16 scales end at 65504 and get coarse below 2^-14, in steps of 2^-24.

Measured on Gaussian rows of standard deviation s, the RMS error relative to the weights is half as much again as usual
from s = 2^-14 on in Q8_0, from 2^-19 in Q6_K, 2^-22 in Q4_0 and Q4_K; a power of two further it doubles. F16 itself
errs by as much as BF16, 0.17 %, at s = 2^-17. Trained weights have 2^-4 to 2^-9.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, SUPER_BLOCK, BlockType, block_type, panels, super_blocks
from edgeq.kernels.encode_api import encode_panels

F32Array = npt.NDArray[np.float32]
U8Array = npt.NDArray[np.uint8]

F16_MAX = 65504.0
BF16_MAX = 3.3895313892515355e38
GROWTH = 1.5  # of a tensor's error, from which on it gets another type
LEAST_ERROR = 0.002  # which every type but F32 and F16 has anyway: a growing error below that does not matter
# Scales below these may cost so much: those of 32 weights, and those of 256 weights, of which groups have multiples
COARSE, COARSE_OF_MULTIPLES = 2.0**-20, 2.0**-23
COARSE_F16 = 2.0**-16  # standard deviation of weights in F16 below which that may err by LEAST_ERROR
NEGLIGIBLE = 1e-6  # share of the squares of the weights: if all of it is lost, the error is 0.1 %


@dataclass
class Loss:
    """What a tensor loses by a type that is too narrow for its weights. All but the flag are sums of squares.

    past:    whether a weight is past the type's range
    weights: of the weights
    coarse:  of those in panels with coarse scales
    changed: of what encoding these changed
    usual:   of what it would change if they were larger
    """

    past: bool = False
    weights: float = 0.0
    coarse: float = 0.0
    changed: float = 0.0
    usual: float = 0.0

    @property
    def too_small(self) -> bool:
        """Whether the tensor's error is GROWTH times what is usual for the type, and no small one."""
        if self.coarse == 0:
            return False
        usual = self.usual / self.coarse * self.weights
        whole = usual + self.changed - self.usual
        return whole > GROWTH**2 * usual and whole > LEAST_ERROR**2 * self.weights

    def add(self, weights: F32Array, data: npt.NDArray[np.generic], name: str, threads: int) -> None:
        """Count f32 weights [rows, cols], whose panels in the type `name` are `data`."""
        bt = block_type(name)
        if name in ("F32", "BF16") or bt.scales in ("f32", "e8m0", "row"):
            return
        flat = weights.reshape(-1)
        squares = float(np.dot(flat, flat))
        self.weights += squares
        found = np.unique(_coarse_rows(weights, np.asarray(data).view(np.uint8), name, squares) // PANEL_ROWS)
        if not len(found):
            return
        rows, cols = weights.shape
        places = (found[:, None] * PANEL_ROWS + np.arange(PANEL_ROWS)).reshape(-1)
        picked = weights[places[places < rows]]
        panel = np.asarray(data).view(np.uint8).reshape(panels(rows), bt.panel_bytes(cols))[found].reshape(-1)
        self.coarse += _squares(picked)
        self.changed += _squares(decode(panel, len(picked), cols, name) - picked)
        # the same weights in the middle of the range: each row times a power of two
        power = np.ldexp(np.float32(1), np.frexp(np.abs(picked).max(axis=1, keepdims=True))[1])
        large = picked / power
        self.usual += _squares((decode(encode_panels(large, name, threads), len(large), cols, name) - large) * power)


def _squares(values: F32Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _coarse_rows(weights: F32Array, data: U8Array, name: str, squares: float) -> npt.NDArray[np.intp]:
    """Rows with a coarse scale, unless the weights of all such scales together are negligible."""
    none = np.empty(0, np.intp)
    if name == "F16":
        few = squares >= COARSE_F16**2 * weights.size or squares == 0
        return none if few else np.arange(len(weights))
    bt = block_type(name)
    size = bt.scale_group if bt.scales == "f16" else SUPER_BLOCK
    limit = COARSE if bt.scales == "f16" else COARSE_OF_MULTIPLES
    small = _scale_bits(data, len(weights), weights.shape[1], bt) < np.float16(limit).view(np.uint16)
    rows, blocks = np.nonzero(small)
    if not len(rows):
        return none
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % size)))
    concerned = _squares(padded.reshape(len(weights), -1, size)[rows, blocks])
    return np.unique(rows) if concerned > NEGLIGIBLE * squares else none


def _scale_bits(data: U8Array, rows: int, cols: int, bt: BlockType) -> npt.NDArray[Any]:
    """u16 [rows, scales]: the f16 scales that begin the headers, without their signs."""
    count = SUPER_BLOCK // bt.scale_group if bt.scales == "f16" else 1
    needed = -(-cols * count // SUPER_BLOCK)
    buffer = data.reshape(panels(rows), bt.panel_bytes(cols))
    starts = (bt.super_block_offset(index) for index in range(super_blocks(cols)))
    found = [buffer[:, start : start + 2 * count * PANEL_ROWS].view("<u2") for start in starts]
    bits = np.concatenate(found, axis=1).reshape(len(buffer), -1, PANEL_ROWS).transpose(0, 2, 1)
    scales: npt.NDArray[Any] = bits.reshape(len(buffer) * PANEL_ROWS, -1)[:rows, :needed] & 0x7FFF
    return scales
