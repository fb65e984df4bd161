"""How images are cut and normed: the values that transformers' image processor gives."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeing_model import PREPROCESSOR, SIZES, picture

from edgeq.errors import UnsupportedError
from edgeq.vision.tiling import Tiling, read_tiling

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "images.npz")


def tiling(name: str = "preprocessor_config.json", **settings: Any) -> Tiling:
    return read_tiling({name: json.dumps({**PREPROCESSOR, **settings}).encode()}, "m", 32, 4)


@pytest.mark.parametrize("label", [*SIZES, "plain wide", "plain tall"])
def test_values_are_those_of_transformers(label: str) -> None:
    how, image = tiling(do_image_splitting=not label.startswith("plain")), picture(label.split()[-1])
    assert how.grid(*image.shape[:2]) == tuple(GOLDEN[f"{label} grid"])
    values = how.values.table
    cut = np.stack([[values[c][tile[:, :, c]] for c in range(3)] for tile in how.tiles(image)])
    layout = how.layout(*image.shape[:2])
    assert layout.rows == layout.text.count(how.mark) == 4 * len(cut)
    assert hashlib.sha256(cut.tobytes()).hexdigest() == GOLDEN[f"{label} pixels"]


def test_patches_are_channel_by_channel() -> None:
    how, tile = tiling().values, picture("square")[:32, :32]
    found = how.patches(tile, 8)
    assert found.shape == (16, 192)
    planes = np.stack([how.table[c][tile[:, :, c]] for c in range(3)])
    np.testing.assert_array_equal(found[6], planes[:, 8:16, 16:24].ravel())
    found = how.patches(tile, 10)  # two pixels of each row are left
    assert found.shape == (9, 300)
    np.testing.assert_array_equal(found[5], planes[:, 10:20, 20:30].ravel())


def test_the_newer_file_comes_first() -> None:
    old, new = json.dumps(PREPROCESSOR), json.dumps({"image_processor": {**PREPROCESSOR, "resample": 3}})
    assets = {"preprocessor_config.json": old.encode(), "processor_config.json": new.encode()}
    assert read_tiling(assets, "m", 32, 4).values.filter == 3
    assets["processor_config.json"] = b'{"image_seq_len": 4}'
    assert read_tiling(assets, "m", 32, 4).values.filter == 1


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"resample": 0}, "resample 0"),
        ({"image_std": [0.5, 1e-300, 0.5]}, "image_std"),  # no f32, and what it divides is none, either
        ({"resample": True}, "resample True"),
        ({"do_normalize": False}, "do_normalize False"),
        ({"size": {"height": 9, "width": 9}}, "size"),
        ({"size": 7}, "size"),
        ({"size": {"longest_edge": 4097}}, "size"),
        ({"max_image_size": {"longest_edge": 64}}, "max_image_size"),
        ({"size": {"longest_edge": 4096}}, "max_image_size"),  # more tiles than anything is done with
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0, 1]}, "image_std"),
        ({"image_std": [0.5, "1", 1]}, "image_std"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"do_image_splitting": None}, "do_image_splitting"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^m: images: {what}"):
        tiling(**settings)


def test_no_settings_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"^m: has no preprocessor_config\.json"):
        read_tiling({}, "m", 32, 4)
    with pytest.raises(UnsupportedError, match="no JSON"):
        read_tiling({"preprocessor_config.json": b"{"}, "m", 32, 4)
