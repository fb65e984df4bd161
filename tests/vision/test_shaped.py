"""Images that keep their shape: grids, sizes, pixels and positions as transformers' processor and encoder make them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seeing_lfm2
from seeing_lfm2 import JOINED, PATCH, PREPROCESSOR, SHAPES, SIZES, picture

from edgeq.errors import UnsupportedError, UsageError
from edgeq.vision.shaped import Shaped, read_shaped
from edgeq.vision.stretching import stretched

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "lfm2_images.npz")


def shaped(**settings: Any) -> Shaped:
    given = {"image_processor": {**PREPROCESSOR, **settings}}
    return read_shaped({"processor_config.json": json.dumps(given).encode()}, "m", PATCH, JOINED)


def test_grids_and_sizes_are_those_of_transformers() -> None:
    values = shaped().values
    for height, width, fewest, most_tiles, side, least, most, *expected in GOLDEN["grids"].tolist():
        how = Shaped(16, 2, least, most, side, fewest, most_tiles, 2.0, True, values)
        size = expected[2:]
        if size[0] * size[1] // 256 > how.most_patches:
            with pytest.raises(UsageError, match=f"^an image of {width} x {height} pixels is too long"):
                how.layout(height, width)
            continue
        assert [*how.grid(height, width), *how.size(height, width)] == expected
        rows = expected[0] * expected[1]
        layout = how.layout(height, width)
        assert layout.rows == layout.text.count("<image>")
        assert layout.rows == size[0] * size[1] // 1024 + (rows * (side // 32) ** 2 if rows > 1 else 0)


@pytest.mark.parametrize("label", [*SIZES, "whole wide"])
def test_values_are_those_of_transformers(label: str) -> None:
    """Every bit of them, as torchvision makes them on CPUs with AVX2; there pixel by pixel, here channel by channel."""
    how = shaped(**(seeing_lfm2.WHOLE if label.startswith("whole") else {}))
    image = picture(label.removeprefix("whole "))
    tiles = how.tiles(image)
    patches = np.concatenate([how.values.patches(tile, PATCH) for tile in tiles])
    assert how.layout(*image.shape[:2]).rows == len(patches) // JOINED**2
    there = np.ascontiguousarray(patches.reshape(-1, 3, PATCH**2).swapaxes(1, 2))
    assert hashlib.sha256(there.tobytes()).hexdigest() == GOLDEN[f"{label} pixels"]
    assert max(tile.shape[0] * tile.shape[1] for tile in tiles) <= how.most_patches * PATCH**2


def test_a_thumbnail_may_be_left_out() -> None:
    with_it, without = shaped(), shaped(use_thumbnail=False)
    tiles, image = without.tiles(picture("wide")), picture("wide")
    np.testing.assert_array_equal(tiles, with_it.tiles(image)[:-1])
    layout = without.layout(*image.shape[:2])
    assert layout.text.count("<image>") == layout.rows == 16 * len(tiles) and "thumbnail" not in layout.text
    np.testing.assert_array_equal(without.tiles(picture("tall")), with_it.tiles(picture("tall")))


def test_positions_are_those_of_transformers() -> None:
    table = np.random.RandomState(5).random_sample((49, 3)).astype(np.float32)
    found = np.concatenate([stretched(table, *shape) for shape in SHAPES])
    np.testing.assert_allclose(found, GOLDEN["stretched"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(stretched(table, 7, 7), table)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"resample": 1}, "resample 1"),
        ({"resample": 0}, "resample 0"),
        ({"do_normalize": False}, "do_normalize False"),
        ({"do_pad": False}, "do_pad False"),
        ({"encoder_patch_size": 16}, "encoder_patch_size 16"),
        ({"downsample_factor": 3}, "downsample_factor 3"),
        ({"max_image_tokens": 0}, "max_image_tokens"),
        ({"min_image_tokens": 1.5}, "min_image_tokens"),
        ({"tile_size": 50}, "tile_size 50"),
        ({"tile_size": 1 << 40}, "tile_size"),
        ({"max_tiles": 1 << 20}, "max_tiles"),
        ({"max_tiles": 64, "tile_size": 2040}, "max_tiles 64"),  # more than is done with an image
        ({"min_tiles": 7}, "min_tiles 7"),
        ({"min_tiles": 1}, "min_tiles 1"),  # whose text the processor writes with other tokens than it has rows
        ({"max_pixels_tolerance": "2"}, "max_pixels_tolerance"),
        ({"max_pixels_tolerance": 0}, "max_pixels_tolerance"),
        ({"do_image_splitting": 1}, "do_image_splitting 1"),
        ({"use_thumbnail": "no"}, "use_thumbnail"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^m: images: {what}"):
        shaped(**settings)


def test_settings_that_say_nothing_mean_what_transformers_does() -> None:
    usual = read_shaped({"preprocessor_config.json": b'{"do_resize": false, "tile_size": null}'}, "m", 16, 2)
    assert usual[:9] == (16, 2, 64, 256, 512, 2, 10, 2.0, True)
    assert (usual.values.filter, usual.values.mean, usual.most_patches) == (2, (0.5, 0.5, 0.5), 1024)
    assert read_shaped({"preprocessor_config.json": b'{"do_image_splitting": false}'}, "m", 16, 2).most_tiles == 1
