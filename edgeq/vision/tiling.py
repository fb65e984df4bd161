"""What an image becomes before it is encoded: square tiles, and the whole of it once more, as Idefics3's and SmolVLM's
image processors cut them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.errors import UnsupportedError
from edgeq.json_input import parse_json
from edgeq.vision.resampling import FILTERS, U8, resized

FILES = ("processor_config.json", "preprocessor_config.json")  # the newer one first
LANCZOS = 1
MOST_EDGE = 4096  # what an image is resized to at most, whatever the settings say
MOST_TILES = 512
LEAST_DEVIATION = 1e-6  # that divides


class Tiling(NamedTuple):
    """How an image is cut and normed.

    side:   of a tile, in pixels
    longest: what the longer edge of an image is resized to first
    splits: whether it is cut: else it becomes one tile
    filter: Pillow's number of the one that resizes
    rescale, mean, deviation: a value v becomes (v * rescale - mean) / deviation
    """

    side: int
    longest: int
    splits: bool
    filter: int
    rescale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """What each value of each channel becomes, f32 [3, 256]."""
        scaled = (np.arange(256, dtype=np.float64) * self.rescale).astype(np.float32)
        mean, deviation = (np.array(each, np.float32)[:, None] for each in (self.mean, self.deviation))
        found: npt.NDArray[np.float32] = (scaled - mean) / deviation
        return found


def read_tiling(assets: Mapping[str, bytes], source: str, side: int) -> Tiling:
    """As a checkpoint's files say, whose encoder reads tiles of `side` pixels. UnsupportedError for settings that are
    not followed, and for none."""
    given = _settings(assets, source)

    def refuse(key: str) -> UnsupportedError:
        return UnsupportedError(f"{source}: images: {key} {given.get(key)!r:.60} is not supported")

    for key in ("do_resize", "do_rescale", "do_normalize"):
        if given.get(key, True) is not True:
            raise refuse(key)
    edges = {}
    for key, usual in (("size", 4 * 364), ("max_image_size", 364)):
        size = given.get(key) or {"longest_edge": usual}
        edge = size.get("longest_edge") if isinstance(size, Mapping) else None
        if type(edge) is not int or not 1 <= edge <= MOST_EDGE:
            raise refuse(key)
        edges[key] = edge
    if edges["max_image_size"] != side or (math.ceil(edges["size"] / side) + 1) ** 2 > MOST_TILES:
        raise refuse("max_image_size")
    filter, rescale = given.get("resample", LANCZOS), given.get("rescale_factor", 1 / 255)
    if type(filter) is not int or filter not in FILTERS:
        raise refuse("resample")
    if type(rescale) not in (int, float) or not 0 < rescale <= 1:
        raise refuse("rescale_factor")
    norms = []
    for key in ("image_mean", "image_std"):
        three = given.get(key, [0.5] * 3)
        if not isinstance(three, list) or len(three) != 3 or not all(_is_number(each) for each in three):
            raise refuse(key)
        norms.append(tuple(float(each) for each in three))
    if not all(abs(each) >= LEAST_DEVIATION for each in norms[1]):
        raise refuse("image_std")
    splits = given.get("do_image_splitting", True)
    if not isinstance(splits, bool):
        raise refuse("do_image_splitting")
    return Tiling(side, edges["size"], splits, filter, float(rescale), *norms)


def _settings(assets: Mapping[str, bytes], source: str) -> Mapping[str, Any]:
    for name in FILES:
        if name not in assets:
            continue
        try:
            found = parse_json(assets[name])
        except ValueError as error:
            raise UnsupportedError(f"{source}: {name} is no JSON: {error}: take the model's own") from None
        if isinstance(found, Mapping) and name == FILES[0]:
            found = found.get("image_processor")
        if isinstance(found, Mapping):
            return found
    what = f"has no {FILES[1]}, which says how images are prepared"
    raise UnsupportedError(f"{source}: {what}: put the model's beside its config.json")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1000


def grid(height: int, width: int, tiling: Tiling) -> tuple[int, int]:
    """Rows and columns of tiles that an image of this size is cut into; 0 and 0 where it becomes one tile."""
    if not tiling.splits:
        return 0, 0
    height, width = (edge // tiling.side for edge in _multiples(*_first_size(height, width, tiling), tiling.side))
    return (0, 0) if height == width == 1 else (height, width)


def tiles(image: U8, tiling: Tiling) -> U8:
    """Of an image u8 [height, width, 3] its tiles, row by row, and all of it as the last one: u8 [n, side, side, 3]."""
    side, (height, width) = tiling.side, image.shape[:2]
    rows, columns = grid(height, width, tiling)
    image = resized(image, *_first_size(height, width, tiling), tiling.filter)
    if not rows:
        return resized(image, side, side, tiling.filter)[None]
    image = resized(image, rows * side, columns * side, tiling.filter)
    cut = image.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, side, side, 3)
    return np.concatenate([cut, resized(image, side, side, tiling.filter)[None]])


def patches(tile: U8, tiling: Tiling, size: int) -> npt.NDArray[np.float32]:
    """A tile u8 [side, side, 3] as what the encoder reads: f32 [patches, 3 * size * size], each patch channel by
    channel, row by row; pixels at the right and the bottom that fill no patch are left out."""
    values, count = tiling.values, tiling.side // size
    tile = tile[: count * size, : count * size]
    planes = np.stack([values[channel][tile[:, :, channel]] for channel in range(3)])
    cut = planes.reshape(3, count, size, count, size).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(cut).reshape(count * count, 3 * size * size)


def _first_size(height: int, width: int, tiling: Tiling) -> tuple[int, int]:
    """The longer edge is `longest`; the other in proportion, even, and of one pixel at least."""
    ratio = width / height
    if width >= height:
        width = tiling.longest
        height = int(width / ratio)
        height += height % 2
    else:
        height = tiling.longest
        width = int(height * ratio)
        width += width % 2
    return max(height, 1), max(width, 1)


def _multiples(height: int, width: int, side: int) -> tuple[int, int]:
    """The next multiples of `side`, the shorter edge's after it grew in proportion."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / ratio) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * ratio) / side) * side
