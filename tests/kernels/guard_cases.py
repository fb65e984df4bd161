"""Kernels of every block type on ragged shapes, for test_guard_pages.py to run on guarded memory.

Nothing is compared here, as the tests of these kernels do that: what counts is that they end, and write nowhere else.
Weights are random bytes: no pattern of them may lead a kernel astray.
"""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call, matmul

from edgeq.blocks import mending
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.graph.aligned import aligned_copy
from edgeq.kernels.encode_api import encode_panels
from edgeq.kernels.mend_api import quantize_panels
from edgeq.ops import embedding

QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]
FLOATS = [bt.name for bt in BLOCK_TYPES.values() if not bt.quantized]
SHAPES = [(1, 32), (5, 96), (37, 288), (80, 256), (90, 544)]
UNEVEN = [(5, 7), (37, 172)]  # columns that only floats may have
TOKENS = (1, 2, 3, 5, 8, 9, 17)
NATIVE = [body for body in BODIES if body.native]


def panels(name: str, rows: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    return rng.integers(0, 256, BLOCK_TYPES[name].tensor_bytes(rows, columns), np.uint8)


def rows_of(count: int, columns: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, columns)).astype(np.float32)


@pytest.mark.parametrize("body", NATIVE, ids=repr)
@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_matmul(body, name):
    for rows, columns in SHAPES + (UNEVEN if name in FLOATS else []):
        for tokens in TOKENS:
            x = rows_of(tokens, columns)
            matmul(body, name, panels(name, rows, columns), rows, x)
        matmul(body, name, panels(name, rows, columns), rows, x, rows_of(1, rows)[0], rows_of(tokens, rows), threads=3)


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_rows_of_an_embedding(name):
    for rows, columns in SHAPES + (UNEVEN if name in FLOATS else []):
        table = aligned_copy(panels(name, rows, columns))
        ids = np.array([0, rows - 1, rows // 2, rows], np.int64)  # one beyond the last
        out, count = np.zeros((len(ids), columns), np.float32), np.array([len(ids)], np.int64)
        places = address(table), columns, address(ids), address(out), out.strides[0], address(count)
        call(NATIVE[0].kernel(f"embedding:{name}"), embedding.Args(*places, rows), threads=2)


@pytest.mark.parametrize("name", QUANTIZED)
def test_encode(name):
    for rows, columns in SHAPES:
        weights = rows_of(rows, columns)
        encode_panels(weights, name)
        encode_panels(weights, name, 2, np.square(rows_of(1, columns)[0]))


@pytest.mark.parametrize("name", QUANTIZED)
def test_mend(name):
    for rows, columns in SHAPES[:3]:
        size = BLOCK_TYPES[name].coded_columns
        order, upper = np.arange(columns), np.triu(rows_of(columns, columns) / columns, 1) + np.eye(columns)
        weights = np.square(rows_of(1, columns)[0])
        sweeps = mending.Sweeps(2, np.asarray(upper, np.float32), weights) if columns % size == 0 else None
        quantize_panels(rows_of(rows, columns), order, np.asarray(upper, np.float32), weights, name, 2, sweeps)
