"""Scales and values that cannot be computed with are found when a model is loaded."""

from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.headers import parts
from edgeq.blocks.reference import encode
from edgeq.blocks.table import BLOCK_TYPES, PANEL_ROWS, block_type
from edgeq.container.placement import TensorSpec
from edgeq.container.reader import open_file
from edgeq.container.writer import Writer
from edgeq.errors import FormatError
from edgeq.runtime.finite import check_finite

ROWS, COLUMNS = 24, 320  # panels and super-blocks that are short
METADATA = {"architecture": "llama", "config": {}}


def write(path: Path, kind: str, data: np.ndarray, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> Path:
    with Writer(path, [TensorSpec("blk.0.attn_q.weight", shape, kind)], METADATA, {}) as writer:
        writer.write("blk.0.attn_q.weight", data)
    return path


def matrix(kind: str) -> np.ndarray:
    weights = np.random.default_rng(5).normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    return np.frombuffer(bytearray(encode(weights, kind).tobytes()), np.uint8)


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_every_type(kind: str, tmp_path: Path):
    """A number that is none, in the first and the last header; and codes of all ones are no such thing."""
    data, bt = matrix(kind), block_type(kind)
    with open_file(write(tmp_path / "sound.eqf", kind, data)) as file:
        check_finite(file)
    if bt.quantized:
        form = parts(bt)[0][2]
        bad = {"<f2": b"\0\x7c", "<f4": b"\0\0\x80\xff", "u1": b"\xff"}[form]
        panel = bt.panel_bytes(COLUMNS)
        last = panel + (0 if bt.per_row else bt.super_block_offset(1)) + (PANEL_ROWS - 1) * len(bad)
        places = [0, last]
        ones = data.copy()
        ones[bt.header_bytes : bt.header_bytes + bt.group_bytes] = 255
        with open_file(write(tmp_path / "ones.eqf", kind, ones)) as file:
            check_finite(file)
    else:
        bad = {"F32": b"\0\0\xc0\x7f", "F16": b"\0\xfc", "BF16": b"\x80\x7f"}[kind]
        places = [0, len(data) - len(bad)]
    for place in places:
        broken = data.copy()
        broken[place : place + len(bad)] = np.frombuffer(bad, np.uint8)
        with open_file(write(tmp_path / "bad.eqf", kind, broken)) as file:
            with pytest.raises(
                FormatError, match=r"tensor blk\.0\.attn_q\.weight has a (scale|value) that is not finite"
            ):
                check_finite(file)
            check_finite(file, matrices=False)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -1e19])
def test_vectors_are_looked_at_always(value: float, tmp_path: Path):
    vector = np.ones(40, np.float32)
    vector[7] = value
    with (
        open_file(write(tmp_path / "bad.eqf", "F32", vector, (40,))) as file,
        pytest.raises(FormatError, match="a value that is not finite, or too large"),
    ):
        check_finite(file, matrices=False)


def test_matrices_of_experts_are_left_to_verify(tmp_path: Path):
    weights = np.full(2 * 16 * 32, np.nan, np.float32)
    with open_file(write(tmp_path / "bad.eqf", "F32", weights, (2, 16, 32))) as file:
        check_finite(file)
