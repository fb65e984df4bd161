"""Checkpoints of bitsandbytes: 4-bit codes of a codebook (NF4, FP4; arXiv:2305.14314), and LLM.int8 (arXiv:2208.07339).

4 bits, of a matrix with `n` weights, row after row, in blocks of `blocksize` that may go on in the next row:

    weight                          U8 [n / 2, 1], or the same bytes as another type; the high nibble is the first code
    weight.quant_map                F32 [16]: the codebook
    weight.absmax                   F32 [n / blocksize], the scales; nested: U8, indices of nested_quant_map
    weight.nested_absmax            F32: scales of blocks of `nested_blocksize` such indices
    weight.nested_quant_map         F32 [256]
    weight.quant_state.bitsandbytes__nf4 or __fp4   JSON in U8: shape, blocksize, nested_blocksize, nested_offset

scale = nested_quant_map[absmax] * nested_absmax + nested_offset; weight = quant_map[code] * scale.

8 bits: weight I8 [out, in], SCB F32 [out]; weight = code * SCB / 127.
"""

from collections.abc import Mapping
from math import gcd, prod
from typing import Any

import numpy as np

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import F32Array, Packed, Rows, Scaled, Survey, expect, matrix_shape, survey
from edgeq.checkpoints.stored import ELEMENTS
from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.system.json_input import parse_json

STATE = ".quant_state.bitsandbytes__"


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`, which does not matter: the tensors tell."""
    found: list[Packed] = []
    states = {name.split(STATE)[0] for name in files.tensors if STATE in name}
    for name in files.tensors:
        if STATE in name:
            stem, codebook = name.split(STATE)
            found.append(FourBit(files, stem, name, codebook))
        elif name.endswith(".SCB"):
            stem = name.removesuffix(".SCB")
            found.append(_int8(files, stem, source))
        elif name.endswith(".weight.absmax") and name.removesuffix(".absmax") not in states:
            raise UnsupportedError(
                f"{source}: {name!r} has no quant_state beside it: save it with a newer bitsandbytes"
            )
    return found


def _int8(files: Files, stem: str, source: str) -> Packed:
    weight, layout = f"{stem}.weight", f"{stem}.weight_format"
    if weight not in files.tensors or files.tensors[weight].dtype != "I8":
        raise CheckpointError(f"{source}: {stem} has an SCB but no weight of type I8: the checkpoint is damaged")
    if layout in files.tensors and np.any(files.whole(layout)):
        raise UnsupportedError(f"{source}: {layout} is not row by row, which is not supported: save it again on a CPU")
    row = 1, matrix_shape(files, weight, weight)[1]
    matrix = Scaled(files, weight, "bitsandbytes INT8", f"{stem}.SCB", row, factor=1 / 127)
    matrix.stored += [layout] if layout in files.tensors else []
    return matrix


class FourBit(Packed):
    """A matrix of 4-bit codes."""

    def __init__(self, files: Files, weight: str, state: str, codebook: str) -> None:
        parts = [f"{weight}.{part}" for part in ("absmax", "quant_map", "nested_absmax", "nested_quant_map")]
        stored = [weight, state, *(part for part in parts if part in files.tensors)]
        super().__init__(files, weight, f"bitsandbytes {codebook.upper()}", 4, (0, 0), stored)
        self._absmax, self._map, self._nested, self._nested_map = parts
        content = bytes(files.whole(state))
        try:
            found = parse_json(content)
            rows, columns = (int(n) for n in found["shape"])
            self._blocksize = int(found["blocksize"])
            self._nested_blocksize = int(found.get("nested_blocksize", 1))
            self._offset = np.float32(float(found.get("nested_offset", 0.0)))
        except (ValueError, TypeError, OverflowError, KeyError, AttributeError):
            raise self.fail("its quant_state is damaged, or of no matrix") from None
        self.shape = rows, columns
        self._check(state)

    def _check(self, state: str) -> None:
        """CheckpointError unless tensors have the shapes that the quant_state says."""
        files, weights = self.files, self.shape[0] * self.shape[1]
        if min(*self.shape, self._blocksize, self._nested_blocksize) < 1 or self.stored[0] not in files.tensors:
            raise self.fail(f"no matrix {list(self.shape)} in blocks of {self._blocksize}")
        tensor, blocks = files.tensors[self.stored[0]], -(-weights // self._blocksize)
        nbytes = prod(tensor.shape) * ELEMENTS[tensor.dtype].itemsize
        if 2 * nbytes != weights:
            raise self.fail(f"{nbytes} bytes are not a matrix {list(self.shape)} of 4-bit codes")
        nested = self._nested in files.tensors
        expect(files, self._map, ("F32",), (16,), state)
        expect(files, self._absmax, ("U8",) if nested else ("F32",), (blocks,), state)
        if nested:
            expect(files, self._nested, ("F32",), (-(-blocks // self._nested_blocksize),), state)
            expect(files, self._nested_map, ("F32",), (256,), state)

    def _scales(self) -> F32Array:
        """f32 [blocks]."""
        if self._nested not in self.files.tensors:
            return self.files.floats(self._absmax)
        indices = self.files.whole(self._absmax)
        outer = self.files.floats(self._nested)[np.arange(len(indices)) // self._nested_blocksize]
        scales: F32Array = self.files.floats(self._nested_map)[indices] * outer + self._offset
        return scales

    def _run(self) -> int:
        """Columns of a row that surely share a scale."""
        return gcd(self._blocksize, self.shape[1])

    def rows(self, start: int, stop: int) -> Rows:
        columns, run = self.shape[1], self._run()
        nibbles = np.ascontiguousarray(self.files.whole(self.stored[0])).reshape(-1).view(np.uint8)
        first, last = start * columns, stop * columns
        pairs = nibbles[first // 2 : -(-last // 2)]
        codes = np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        blocks = np.arange(first, last, run) // self._blocksize
        scales = self._scales()[blocks].reshape(stop - start, -1)
        codebook = self.files.floats(self._map)
        return Rows(codes.reshape(stop - start, columns), scales, np.arange(columns) // run, codebook)

    def survey(self) -> Survey:
        return survey(self, self._scales(), np.arange(self.shape[1]) // self._run(), self.files.floats(self._map))
