"""What a family of models that see makes of an image before it is encoded, and what all families have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeq.errors import UnsupportedError
from edgeq.system.json_input import parse_json
from edgeq.vision.resampling import FILTERS, U8, resized

FILES = ("processor_config.json", "preprocessor_config.json")  # the newer one first
MOST_EDGE = 4096  # what an image is resized to at most, whatever the settings say
LEAST_DEVIATION = 1e-6  # that divides


Tiles = U8 | list[U8]  # u8 [tiles, side, side, 3], or each u8 [height, width, 3]


class Layout(NamedTuple):
    """What an image of some size becomes: rows that its tiles are encoded to, and the text in which these stand."""

    rows: int
    text: str


class Preparation(Protocol):
    """How images are prepared for a model: see Values, of all families."""

    @property
    def mark(self) -> str:
        """What a chat template writes for an image."""

    @property
    def values(self) -> "Values":
        """What pixels become."""

    @property
    def most_patches(self) -> int:
        """Of a tile at most, where the tower's positions are made for each (see Images); 0 otherwise."""

    def layout(self, height: int, width: int) -> Layout:
        """Of an image of this size: the rows of its tiles, in the order of `tiles`. UsageError for one of a shape that
        cannot be encoded."""

    def tiles(self, image: U8) -> Tiles:
        """Of an image u8 [height, width, 3], whose layout can be made, what is encoded."""


class Values(NamedTuple):
    """How pixels are resized and normed.

    filter: Pillow's number of the one that resizes
    rescale, mean, deviation: a value v becomes (v * rescale - mean) / deviation
    torch: as torchvision does it, which changes last bits: the same is (v - mean / rescale) / (deviation / rescale)
    """

    filter: int
    rescale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    torch: bool = False

    @property
    def table(self) -> npt.NDArray[np.float32]:
        """What each value of each channel becomes, f32 [3, 256]."""
        scaled = (np.arange(256, dtype=np.float64) * (1.0 if self.torch else self.rescale)).astype(np.float32)
        mean, deviation = (np.array(each, np.float32)[:, None] for each in (self.mean, self.deviation))
        if self.torch:
            mean, deviation = (each * np.float32(1.0 / self.rescale) for each in (mean, deviation))
        found: npt.NDArray[np.float32] = (scaled - mean) / deviation
        return found

    def resized(self, image: U8, height: int, width: int) -> U8:
        """An image u8 [., ., 3] in another size."""
        return resized(image, height, width, self.filter, self.torch)

    def patches(self, tile: U8, size: int) -> npt.NDArray[np.float32]:
        """A tile u8 [height, width, 3] as what an encoder reads: f32 [patches, 3 * size * size], row by row of patches,
        each channel by channel, row by row; pixels at the right and the bottom that fill no patch are left out."""
        table, (down, across) = self.table, (edge // size for edge in tile.shape[:2])
        tile = tile[: down * size, : across * size]
        planes = np.stack([table[channel][tile[:, :, channel]] for channel in range(3)])
        cut = planes.reshape(3, down, size, across, size).transpose(1, 3, 0, 2, 4)
        return np.ascontiguousarray(cut).reshape(down * across, 3 * size * size)


class Settings:
    """What the checkpoint `source` says of how images are prepared, by Hugging Face's names."""

    def __init__(self, assets: Mapping[str, bytes], source: str) -> None:
        """UnsupportedError where it says nothing."""
        self.given, self._source = _found(assets, source), source

    def refuse(self, key: str) -> UnsupportedError:
        """The error of a setting that is not followed."""
        return UnsupportedError(f"{self._source}: images: {key} {self.given.get(key)!r:.60} is not supported")

    def edge(self, key: str, name: str, usual: int) -> int:
        """Pixels: what is called `name` within `key`. UnsupportedError for none and for too many."""
        size = self.given.get(key) or {name: usual}
        edge = size.get(name) if isinstance(size, Mapping) else None
        if type(edge) is not int or not 1 <= edge <= MOST_EDGE:
            raise self.refuse(key)
        return edge

    def integer(self, key: str, usual: int, most: int) -> int:
        """From 1 to `most`; `usual` where it says nothing. UnsupportedError for another one."""
        value = usual if self.given.get(key) is None else self.given[key]
        if type(value) is not int or not 1 <= value <= most:
            raise self.refuse(key)
        return value

    def flag(self, key: str, usual: bool) -> bool:
        """Whether something is so. UnsupportedError for what says neither."""
        value = usual if self.given.get(key) is None else self.given[key]
        if not isinstance(value, bool):
            raise self.refuse(key)
        return value

    def scaling(self, filter: int, needed: Sequence[str] = ("do_resize", "do_rescale")) -> tuple[int, float]:
        """The filter by which pixels are resized, `filter` where nothing is said, and what they are multiplied by.
        UnsupportedError for another way, and where one of the steps `needed` is left out."""
        for key in needed:
            if self.given.get(key, True) is not True:
                raise self.refuse(key)
        chosen, rescale = self.given.get("resample", filter), self.given.get("rescale_factor", 1 / 255)
        if type(chosen) is not int or chosen not in FILTERS:
            raise self.refuse("resample")
        if type(rescale) not in (int, float) or not 0 < rescale <= 1:
            raise self.refuse("rescale_factor")
        return chosen, float(rescale)

    def values(
        self, filter: int, needed: Sequence[str] = ("do_resize", "do_rescale", "do_normalize"), torch: bool = False
    ) -> Values:
        """How pixels are resized, by `filter` where nothing is said, and normed; with `torch` see Values.
        UnsupportedError as `scaling`."""
        chosen, rescale = self.scaling(filter, needed)
        norms = []
        for key in ("image_mean", "image_std"):
            three = self.given.get(key, [0.5] * 3)
            if not isinstance(three, list) or len(three) != 3 or not all(_is_number(each) for each in three):
                raise self.refuse(key)
            norms.append(tuple(float(each) for each in three))
        if not all(abs(each) >= LEAST_DEVIATION for each in norms[1]):
            raise self.refuse("image_std")
        return Values(chosen, rescale, norms[0], norms[1], torch)


def _found(assets: Mapping[str, bytes], source: str) -> Mapping[str, Any]:
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
