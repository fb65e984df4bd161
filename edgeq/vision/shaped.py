"""Images that keep their shape: a small one becomes one tile of about its own size, a large one square tiles, and the
whole of it once more, and what stands for these in a prompt: as LFM2-VL's processor does it."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from edgeq.errors import UsageError
from edgeq.vision.picture import MOST_PIXELS
from edgeq.vision.preparation import Layout, Settings, Tiles, Values
from edgeq.vision.resampling import U8

IMAGE, BEGIN, END, WHOLE = "<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"
BILINEAR = 2
MOST_TILES, MOST_TILE_EDGE, MOST_ROWS = 64, 2048, 4096
MOST_PATCHES = 1 << 18  # of all tiles


class Shaped(NamedTuple):
    """A Preparation.

    patch:  pixels of its edge
    joined: how many patches of a row, and of a column, become one row of a text
    least, most: rows that an image is scaled to, if it becomes one tile
    side:   of the tiles of a large image, in pixels
    fewest_tiles, most_tiles: that it becomes; 1 and 1 where it is never cut
    tolerance: how many times `most` an image may be that is not large
    thumbnail: whether the whole of a large one comes after its tiles
    """

    patch: int
    joined: int
    least: int
    most: int
    side: int
    fewest_tiles: int
    most_tiles: int
    tolerance: float
    thumbnail: bool
    values: Values
    mark: str = IMAGE

    @property
    def unit(self) -> int:
        """The edge of what becomes one row of a text, in pixels."""
        return self.patch * self.joined

    @property
    def most_patches(self) -> int:
        """Of a tile, or of an image that is one."""
        square = (self.side // self.unit) ** 2 if self.most_tiles > 1 else 0
        return max(self.most, square) * self.joined**2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles that an image of this size is cut into: 1 and 1 where it is one."""
        area = math.prod(max(self.patch, self._rounded(edge)) for edge in (height, width))
        if self.most_tiles == 1 or not area > self.most * self.unit**2 * self.tolerance:
            return 1, 1
        best, least = (1, 1), math.inf
        for across, down in _grids(self.fewest_tiles, self.most_tiles):
            off = abs(width / height - across / down)
            if off < least or (off == least and width * height > 0.5 * self.side**2 * across * down):
                best, least = (down, across), off
        return best

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What an image of this size is scaled to where it becomes one tile, multiples of `unit`. UsageError for one
        whose shape leaves it too many patches."""
        unit, pixels = self.unit, height * width
        found = [max(unit, self._rounded(edge)) for edge in (height, width)]
        if math.prod(found) > self.most * unit**2:
            scale = math.sqrt(pixels / (self.most * unit**2))
            found = [max(unit, math.floor(edge / scale / unit) * unit) for edge in (height, width)]
        elif math.prod(found) < self.least * unit**2:
            scale = math.sqrt(self.least * unit**2 / pixels)
            found = [math.ceil(edge * scale / unit) * unit for edge in (height, width)]
        if math.prod(found) // self.patch**2 > self.most_patches:
            raise UsageError(f"an image of {width} x {height} pixels is too long for its other edge: crop it")
        return found[0], found[1]

    def layout(self, height: int, width: int) -> Layout:
        """Tiles, each with its place, then the whole."""
        down, across = self.grid(height, width)
        tile, whole = (self.side // self.unit) ** 2, math.prod(self.size(height, width)) // self.unit**2
        if down == across == 1:
            return Layout(whole, f"{BEGIN}{IMAGE * whole}{END}")
        places = [(row, column) for row in range(1, down + 1) for column in range(1, across + 1)]
        text = "".join(f"<|img_row_{row}_col_{column}|>{IMAGE * tile}" for row, column in places)
        if not self.thumbnail:
            return Layout(tile * len(places), f"{BEGIN}{text}{END}")
        return Layout(tile * len(places) + whole, f"{BEGIN}{text}{WHOLE}{IMAGE * whole}{END}")

    def tiles(self, image: U8) -> Tiles:
        """Row by row, and all of the image as the last one."""
        side, (down, across), size = self.side, self.grid(*image.shape[:2]), self.size(*image.shape[:2])
        if down == across == 1:
            return [self.values.resized(image, *size)]
        large = self.values.resized(image, down * side, across * side)
        found = [*large.reshape(down, side, across, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)]
        return [*found, self.values.resized(image, *size)] if self.thumbnail else found

    def _rounded(self, edge: int) -> int:
        return round(edge / self.unit) * self.unit


def read_shaped(assets: Mapping[str, bytes], source: str, patch: int, joined: int) -> Shaped:
    """As a checkpoint's files say, whose encoder joins `joined` by `joined` patches of `patch` pixels. UnsupportedError
    for settings that are not followed, and for none."""
    settings = Settings(assets, source)
    values = settings.values(BILINEAR, ("do_rescale", "do_normalize", "do_pad"), torch=True)  # it always resizes
    if values.filter == 1:
        raise settings.refuse("resample")
    for key, usual, here in (("encoder_patch_size", 16, patch), ("downsample_factor", 2, joined)):
        if settings.integer(key, usual, MOST_TILE_EDGE) != here:
            raise settings.refuse(key)
    least, most = (
        settings.integer(f"{end}_image_tokens", usual, MOST_ROWS) for end, usual in (("min", 64), ("max", 256))
    )
    side = settings.integer("tile_size", 512, MOST_TILE_EDGE)
    if side % (patch * joined):
        raise settings.refuse("tile_size")
    splits = settings.flag("do_image_splitting", True)
    fewest, tiles = (settings.integer(f"{end}_tiles", usual, MOST_TILES) for end, usual in (("min", 2), ("max", 10)))
    if splits and (fewest > tiles or fewest == 1 < tiles):
        raise settings.refuse("min_tiles")
    tolerance = settings.given.get("max_pixels_tolerance", 2.0)
    if type(tolerance) not in (int, float) or not 0 < tolerance <= 1e6:
        raise settings.refuse("max_pixels_tolerance")
    found = Shaped(
        patch,
        joined,
        least,
        most,
        side,
        fewest if splits else 1,
        tiles if splits else 1,
        float(tolerance),
        settings.flag("use_thumbnail", True),
        values,
    )
    for key, count, edge in (("max_image_tokens", most, found.unit), ("max_tiles", found.most_tiles, side)):
        if count * edge**2 > MOST_PIXELS or count * edge**2 // patch**2 > MOST_PATCHES:
            raise settings.refuse(key)
    return found


@lru_cache(maxsize=4)
def _grids(fewest: int, most: int) -> list[tuple[int, int]]:
    """Columns and rows of as many tiles, those of fewer first. Of equally many the order is the processor's, which is
    that of Python's sets: it tells where two are equally near to an image's shape."""
    counts = range(fewest, most + 1)
    every = [(w, h) for n in counts for w in range(1, n + 1) for h in range(1, n + 1) if fewest <= w * h <= most]
    return sorted(set(every), key=lambda grid: grid[0] * grid[1])
