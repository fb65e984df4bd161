"""What a tensor loses by a type whose scales are too narrow for it: measured as the tensor's own error would tell."""

import numpy as np
import pytest

from edgeq.blocks import reference
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.quantize.narrow import GROWTH, LEAST_ERROR, Loss

WEIGHTS = np.random.default_rng(1).standard_normal((40, 288), np.float32)  # a short panel and a short super-block
NAMES = [name for name, bt in BLOCK_TYPES.items() if name != "F32" and not name.endswith("_W")]


def error(weights: np.ndarray, name: str) -> float:
    """RMS error relative to the weights."""
    found = reference.decode(reference.encode(weights, name), *weights.shape, name)
    return float(np.sqrt(np.square(found - weights, dtype="f8").sum() / np.square(weights, dtype="f8").sum()))


@pytest.mark.parametrize("name", NAMES)
def test_it_agrees_with_the_error(name: str) -> None:
    """Found as soon as all of a tensor's error has grown so much, whatever its chunks are; and not before."""
    usual, seen = error(WEIGHTS, name), set()
    for power in range(6, 30, 2):
        small = np.ldexp(WEIGHTS, -power)
        grown = error(small, name)
        if abs(grown / usual - GROWTH) < 0.1 or abs(grown / LEAST_ERROR - 1) < 0.1:
            continue
        loss = Loss()
        for part in (small[:16], small[16:]):
            loss.add(part, reference.encode(part, name), name, 1)
        expected = grown > GROWTH * usual and grown > LEAST_ERROR
        assert loss.too_small == expected, f"2^-{power}: {grown} instead of {usual}"
        seen.add(expected)
    wide = name == "BF16" or BLOCK_TYPES[name].scales in ("f32", "e8m0", "row")
    assert seen == ({False} if wide else {False, True})


@pytest.mark.parametrize(("larger", "expected"), [(0, True), (4, True), (8, False), (20, False)])
def test_the_whole_tensor_counts(larger: int, expected: bool) -> None:
    """Rows that are lost count by their part of all squares: here 24 beside 16 whose weights are 2^larger larger."""
    mixed = np.ldexp(WEIGHTS, -18)
    mixed[:16] *= np.float32(2.0**larger)
    usual = error(WEIGHTS, "Q8_0")
    assert (error(mixed, "Q8_0") > GROWTH * usual) == expected
    loss = Loss()
    for part in (mixed[:16], mixed[16:]):
        loss.add(part, reference.encode(part, "Q8_0"), "Q8_0", 1)
    assert loss.too_small == expected


def test_zeros_lose_nothing() -> None:
    sparse = WEIGHTS.copy()
    sparse[::2] = 0
    sparse[:, 32:96] = 0
    for name in ("Q8_0", "Q6_K", "Q4_1", "F16"):
        for weights in (sparse, np.zeros_like(sparse)):
            loss = Loss()
            loss.add(weights, reference.encode(weights, name), name, 1)
            assert loss.coarse == 0 and not loss.too_small
