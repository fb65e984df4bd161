"""Images resized as Pillow does it, and as torchvision does it on CPUs with AVX2."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from seeing_model import picture

from edgeq.vision.resampling import FILTERS, resized

GOLDENS = Path(__file__).resolve().parents[1] / "golden"
GOLDEN, TORCHVISION = np.load(GOLDENS / "images.npz"), np.load(GOLDENS / "lfm2_images.npz")
SIZES = ((40, 61), (200, 31), (120, 50), (9, 300))


@pytest.mark.parametrize("number", FILTERS)
def test_resized_as_by_pillow(number: int) -> None:
    image = picture("wide")
    found = [hashlib.sha256(resized(image, *size, number).tobytes()).hexdigest() for size in SIZES]
    assert found == list(GOLDEN[f"filter {number}"])


@pytest.mark.parametrize("number", [2, 3])
def test_resized_as_by_torchvision(number: int) -> None:
    image = picture("wide")
    found = [hashlib.sha256(resized(image, *size, number, short=True).tobytes()).hexdigest() for size in SIZES]
    assert found == list(TORCHVISION[f"filter {number}"])


def test_the_same_size_is_the_same_image() -> None:
    image = picture("tall")
    np.testing.assert_array_equal(resized(image, *image.shape[:2], 1), image)


@pytest.mark.parametrize("number", FILTERS)
def test_what_has_one_value_keeps_it(number: int) -> None:
    assert (resized(np.full((7, 300, 3), 201, np.uint8), 90, 4, number) == 201).all()
