"""Images cut into square tiles, and the whole of them once more, and what stands for these in a prompt: as Idefics3's
and SmolVLM's processors do it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgeq.vision.preparation import Layout, Settings, Values
from edgeq.vision.resampling import U8, resized

IMAGE, AROUND, WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
LANCZOS = 1
MOST_TILES = 512


class Tiling(NamedTuple):
    """A Preparation.

    side:    of a tile, in pixels
    rows:    that a tile is encoded to
    longest: what the longer edge of an image is resized to first
    splits:  whether it is cut: else it becomes one tile
    """

    side: int
    rows: int
    longest: int
    splits: bool
    values: Values
    mark: str = IMAGE
    most_patches: int = 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles that an image of this size is cut into; 0 and 0 where it becomes one tile."""
        if not self.splits:
            return 0, 0
        height, width = (edge // self.side for edge in _multiples(*self._first_size(height, width), self.side))
        return (0, 0) if height == width == 1 else (height, width)

    def layout(self, height: int, width: int) -> Layout:
        """Tiles, each with its place, then the whole."""
        down, across = self.grid(height, width)
        tiles, image = "", IMAGE * self.rows
        for row in range(1, down + 1):
            tiles += "".join(f"{AROUND}<row_{row}_col_{column}>{image}" for column in range(1, across + 1)) + "\n"
        before = "\n" if down else ""
        return Layout((down * across + 1) * self.rows, f"{tiles}{before}{AROUND}{WHOLE}{image}{AROUND}")

    def tiles(self, image: U8) -> U8:
        """Row by row, and all of the image as the last one."""
        side, filter, (height, width) = self.side, self.values.filter, image.shape[:2]
        rows, columns = self.grid(height, width)
        image = resized(image, *self._first_size(height, width), filter)
        if not rows:
            return resized(image, side, side, filter)[None]
        image = resized(image, rows * side, columns * side, filter)
        cut = image.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, side, side, 3)
        return np.concatenate([cut, resized(image, side, side, filter)[None]])

    def _first_size(self, height: int, width: int) -> tuple[int, int]:
        """The longer edge is `longest`; the other in proportion, even, and of one pixel at least."""
        ratio = width / height
        if width >= height:
            width = self.longest
            height = int(width / ratio)
            height += height % 2
        else:
            height = self.longest
            width = int(height * ratio)
            width += width % 2
        return max(height, 1), max(width, 1)


def read_tiling(assets: Mapping[str, bytes], source: str, side: int, rows: int) -> Tiling:
    """As a checkpoint's files say, whose encoder makes `rows` of tiles of `side` pixels. UnsupportedError for settings
    that are not followed, and for none."""
    settings = Settings(assets, source)
    values = settings.values(LANCZOS)
    longest, most = settings.edge("size", "longest_edge", 4 * 364), settings.edge("max_image_size", "longest_edge", 364)
    if most != side or (math.ceil(longest / side) + 1) ** 2 > MOST_TILES:
        raise settings.refuse("max_image_size")
    splits = settings.given.get("do_image_splitting", True)
    if not isinstance(splits, bool):
        raise settings.refuse("do_image_splitting")
    return Tiling(side, rows, longest, splits, values)


def _multiples(height: int, width: int, side: int) -> tuple[int, int]:
    """The next multiples of `side`, the shorter edge's after it grew in proportion."""
    ratio = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / ratio) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * ratio) / side) * side
