"""Formats that guides name and edgeq has no blocks for: what they would cost, without kernels of their own.

Weights are rounded as such a format rounds them, and written back as F32; the bytes are those that it would take. What
multiplies is exact, so activations are not rounded to 8 bits as beside the types that run.

INT8, INT4  a scale for a tensor, for each row (a channel of outputs), or for each 128 columns of a row. Symmetric:
            codes -127 to 127, or -7 to 7, of max |w| / 127. Asymmetric (`_ASYM`): codes from 0 on, and one of them,
            stored beside the scale, that stands for zero, so that they reach from min w to max w. Scales are F16.
NF4_DQ      16 quantiles of the normal distribution times max |w| of 64 weights; these maxima, less their mean, in 8
            bits (arXiv:2110.02861) of blocks of 256: double quantization (arXiv:2305.14314)

Where a format has 4 bits, the head, or a tied embedding, is INT8_ROW: recipes give it 6 bits, too.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.reference import decode
from edgeq.blocks.table import NF4_VALUES, tensor_bytes
from edgeq.container.reader import File
from edgeq.container.writer import TensorSpec, Writer
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.recipes import RECIPES

TENSOR, ROW, COLUMNS = "tensor", "row", 128  # what shares a scale
BLOCK, NESTED = 64, 256  # weights of a scale of NF4_DQ, and scales of one of theirs


@dataclass(frozen=True)
class Affine:
    """Codes of some `bits`, evenly spaced, whose scale a TENSOR, a ROW or so many columns of one share."""

    bits: int
    share: str | int
    asymmetric: bool = False

    def rounded(self, weights: F32) -> F32:
        """f32 [rows, columns] as they come back."""
        rows, columns = weights.shape
        width = self.share if isinstance(self.share, int) else columns
        padded = np.pad(weights, ((0, 0), (0, -columns % width)))  # zeros, which every range holds
        parts = padded.reshape(1, -1) if self.share == TENSOR else padded.reshape(-1, width)
        if self.asymmetric:
            low, high = np.minimum(parts.min(1), 0), np.maximum(parts.max(1), 0)
            scale, most = _f16((high - low) / self._most), self._most
            zero = np.clip(np.rint(_over(-low, scale)), 0, most)[:, None]
            codes = np.clip(np.rint(_over(parts, scale[:, None])) + zero, 0, most) - zero
        else:
            most = self._most // 2
            scale = _f16(np.abs(parts).max(1) / most)
            codes = np.clip(np.rint(_over(parts, scale[:, None])), -most, most)
        found: F32 = (codes * scale[:, None]).reshape(rows, -1)[:, :columns]
        return found

    def nbytes(self, rows: int, columns: int) -> int:
        """Codes and scales of a matrix."""
        scales = {TENSOR: 1, ROW: rows}.get(str(self.share)) or rows * -(-columns // int(self.share))
        return -(-(rows * columns * self.bits + scales * (16 + self.bits * self.asymmetric)) // 8)

    @property
    def _most(self) -> int:
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class DoubleNormal:
    """NF4_DQ. Blocks run on from row to row, as in bitsandbytes."""

    bits: int = 4

    def rounded(self, weights: F32) -> F32:
        """f32 [rows, columns] as they come back."""
        flat = weights.reshape(-1)
        parts = np.pad(flat, (0, -len(flat) % BLOCK)).reshape(-1, BLOCK)
        scale = np.abs(parts).max(1)
        codes = _nearest(_over(parts, scale[:, None]), NF4_VALUES)
        found: F32 = codes * self._scales(scale)[:, None]
        return found.reshape(-1)[: len(flat)].reshape(weights.shape)

    @staticmethod
    def _scales(scales: F32) -> F32:
        """As they come back."""
        mean = np.float32(scales.mean(dtype=np.float64))
        parts = np.pad(scales - mean, (0, -len(scales) % NESTED)).reshape(-1, NESTED)
        largest = np.abs(parts).max(1, keepdims=True)
        codes = _nearest(_over(parts, largest), dynamic())
        found: F32 = (codes * largest).reshape(-1)[: len(scales)] + mean
        return found

    def nbytes(self, rows: int, columns: int) -> int:
        """Codes, their scales, the scales of these, and the mean."""
        scales = -(-rows * columns // BLOCK)
        return -(-rows * columns * self.bits // 8) + scales + 4 * -(-scales // NESTED) + 4


def dynamic() -> list[float]:
    """The 256 values of 8 bits: 0, 1, and of either sign in each of seven decades twice as many as in the one below,
    evenly spaced."""
    decades = ((10.0 ** (power - 6), 1 << power) for power in range(7))
    positive = [ten * (0.1 + 0.9 * (i + 0.5) / count) for ten, count in decades for i in range(count)]
    return sorted([*positive, *(-value for value in positive), 0.0, 1.0])


FORMATS: dict[str, Affine | DoubleNormal] = {
    f"INT{bits}_{where}{'_ASYM' if asymmetric else ''}": Affine(bits, share, asymmetric)
    for bits in (4, 8)
    for where, share in (("TENSOR", TENSOR), ("ROW", ROW), ("G128", COLUMNS))
    for asymmetric in (False, True)
}
FORMATS["NF4_DQ"] = DoubleNormal()


def simulate(file: File, out: str | os.PathLike[str], name: str, threads: int = 1) -> tuple[int, float]:
    """Write `file` as it comes back from the format `name`; (bytes of the file, bits per weight) that it would have."""
    form, layers = FORMATS[name], architecture(file.metadata["config"], file.path).num_hidden_layers
    head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    specs = [TensorSpec(info.name, info.shape, "F32") for info in file.tensors.values()]
    assets = {one: file.asset(one) for one in file.assets}
    saved = 0
    with Writer(out, specs, file.metadata, assets, file.requires) as writer:
        for spec in specs:
            if len(spec.shape) == 1:
                writer.write(spec.name, file.data(spec.name))
                continue
            small = RECIPES["Q8_0"].type_for(spec.name, spec.shape, layers, head != "output.weight").type == "F32"
            own = None if small else FORMATS["INT8_ROW"] if spec.name == head and form.bits == 4 else form
            rows, columns = spec.shape[-2:]
            for matrix in file.data(spec.name).reshape(prod(spec.shape[:-2]), -1):
                weights = decode(matrix, rows, columns, file.tensors[spec.name].type)
                if own is not None:
                    weights = own.rounded(weights)
                    saved += tensor_bytes("F32", (rows, columns)) - own.nbytes(rows, columns)
                writer.write(spec.name, encode_panels(weights, "F32", threads))
    weights_bytes = sum(writer.tensor_bytes(spec.name) for spec in specs) - saved
    return writer.nbytes - saved, 8 * weights_bytes / sum(prod(spec.shape) for spec in specs)


def _f16(scales: F32) -> F32:
    return scales.astype(np.float16).astype(np.float32)


def _over(values: F32, scales: F32) -> F32:
    """Quotients; zero where a scale is."""
    return np.divide(values, scales, out=np.zeros_like(values), where=scales != 0)


def _nearest(values: F32, among: Sequence[float]) -> F32:
    """The nearest of ascending values; of two as near the lower one."""
    ascending = np.array(among, np.float32)
    found: F32 = ascending[np.searchsorted((ascending[1:] + ascending[:-1]) / 2, values)]
    return found
