"""Images of which each becomes one square, whatever its shape, and what stands for it in a prompt: as Gemma 3's
processor does it."""

from collections.abc import Mapping
from typing import NamedTuple

from edgeq.vision.preparation import Layout, Settings, Values
from edgeq.vision.resampling import U8, resized

BEGIN, IMAGE, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
BILINEAR = 2


class Whole(NamedTuple):
    """A Preparation.

    side: of the square, in pixels
    rows: that it is encoded to
    """

    side: int
    rows: int
    values: Values
    mark: str = BEGIN
    most_patches: int = 0

    def layout(self, height: int, width: int) -> Layout:
        """The same for all."""
        return Layout(self.rows, f"\n\n{BEGIN}{IMAGE * self.rows}{END}\n\n")

    def tiles(self, image: U8) -> U8:
        """All of it as one."""
        return resized(image, self.side, self.side, self.values.filter)[None]


def read_whole(assets: Mapping[str, bytes], source: str, side: int, rows: int) -> Whole:
    """As a checkpoint's files say, whose encoder makes `rows` of squares of `side` pixels. UnsupportedError for
    settings that are not followed, and for none."""
    settings = Settings(assets, source)
    values = settings.values(BILINEAR)
    if any(settings.edge("size", edge, 224) != side for edge in ("height", "width")):
        raise settings.refuse("size")
    if settings.given.get("do_pan_and_scan"):
        raise settings.refuse("do_pan_and_scan")
    return Whole(side, rows, values)
