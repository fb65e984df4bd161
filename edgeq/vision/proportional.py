"""Images that keep their proportions, each as large as its rows of the text may be many, and what stands for them in a
prompt: as Gemma 4's processor does it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from edgeq.vision.preparation import Layout, Settings, Values
from edgeq.vision.resampling import U8, resized

BEGIN, IMAGE, END = "<|image>", "<|image|>", "<image|>"
BICUBIC = 3
ROWS = (70, 140, 280, 560, 1120)  # that an image may become at most
HALVES = (0.5,) * 3  # values are from -1 to 1, whatever the settings say


class Proportional(NamedTuple):
    """A Preparation.

    side: of the square of pixels that becomes a row
    most: rows of an image
    """

    side: int
    most: int
    values: Values
    mark: str = IMAGE
    most_patches: int = 0

    def layout(self, height: int, width: int) -> Layout:
        """One tile, whose rows are those of its squares."""
        down, across = self._squares(height, width)
        return Layout(down * across, f"{BEGIN}{IMAGE * (down * across)}{END}")

    def tiles(self, image: U8) -> U8:
        """All of it as one."""
        down, across = self._squares(*image.shape[:2])
        return resized(image, down * self.side, across * self.side, self.values.filter)[None]

    def _squares(self, height: int, width: int) -> tuple[int, int]:
        """How many squares there are from top to bottom, and from left to right."""
        factor = math.sqrt(self.most * self.side**2 / (height * width))
        down, across = (math.floor(factor * edge / self.side) for edge in (height, width))
        if not down:
            return 1, min(width // height, self.most)
        if not across:
            return min(height // width, self.most), 1
        return down, across


def read_proportional(assets: Mapping[str, bytes], source: str, patch: int, joined: int, rows: int) -> Proportional:
    """As a checkpoint's files say, whose encoder makes `rows` at most of patches of `patch` pixels, of which it joins
    `joined` by `joined`. UnsupportedError for settings that are not followed, and for none."""
    settings = Settings(assets, source)
    filter, rescale = settings.scaling(BICUBIC)
    most = settings.given.get("max_soft_tokens", 280)
    if most not in ROWS or most > rows:
        raise settings.refuse("max_soft_tokens")
    for key, usual, own in (("patch_size", 16, patch), ("pooling_kernel_size", 3, joined)):
        if settings.given.get(key, usual) != own:
            raise settings.refuse(key)
    if settings.given.get("do_normalize", False) is not False:
        raise settings.refuse("do_normalize")
    return Proportional(patch * joined, most, Values(filter, rescale, HALVES, HALVES))
