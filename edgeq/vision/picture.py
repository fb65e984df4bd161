"""An image as its pixels, from whatever a caller gives: a path, the bytes of a file, a Pillow image, an array."""

import io
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.system.input import read_bytes
from edgeq.vision.image_parts import MOST_BYTES
from edgeq.vision.resampling import U8

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 64_000_000  # of an image: 7 bytes each while it is decoded
MOST_EDGE = 1 << 16  # of these in a row: what resizes one weighs all that become one pixel
BAND = 1 << 20  # pixels that are converted at a time
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # Pillow's, of 8 bits
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

_QUIET = threading.Lock()  # to silence what Pillow warns of: two threads at once would have it so for good


def pixels(given: object, called: str = "the image") -> U8:
    """u8 [height, width, 3] of a path, the bytes of a file, a Pillow image, or u8 [height, width, 3] or [height,
    width]; what is transparent lies on white. `called` is its name in messages, where it has none of its own.

    Raises UsageError for what is no image, is damaged or too large, and where Pillow is missing for what needs it.
    """
    if isinstance(given, np.ndarray):
        return _of_array(given, called)
    if isinstance(given, str | os.PathLike):
        called = os.fspath(given)
        try:
            given = read_bytes(given, MOST_BYTES + 1)
        except OSError as error:
            raise UsageError(f"{called}: cannot be read: {error.strerror}: give an image's file") from None
    if isinstance(given, bytes | bytearray | memoryview):
        return _of_file(bytes(given), called)
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(given, pillow.Image):
        return _of_pillow(given, called)
    what = type(given).__name__
    raise UsageError(f"{called} is a {what}: give a path, the bytes of a file, a Pillow image or an array of u8")


def _of_array(given: np.ndarray[Any, Any], called: str) -> U8:
    flat = given.ndim == 2
    if given.dtype != np.uint8 or not (flat or (given.ndim == 3 and given.shape[2] == 3)) or not given.size:
        what = f"an array of {given.dtype} {list(given.shape)}"
        raise UsageError(f"{called} is {what}: give u8 [height, width, 3], or [height, width] of grey")
    _check_size(given.shape[1], given.shape[0], called)
    return np.ascontiguousarray(np.repeat(given[:, :, None], 3, axis=2) if flat else given)


def _of_file(content: bytes, called: str) -> U8:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        how = "pip install 'edgeq[vision]', or give an array of its pixels"
        raise UsageError(f"{called}: image files are read by Pillow, which is not installed: {how}") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{called}: is larger than {MOST_BYTES >> 20} MiB: give a smaller image")
    try:
        file = io.BytesIO(content)
        with _QUIET, warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            _check_size(*image.size, called)
            ImageOps.exif_transpose(image, in_place=True)
            return _of_pillow(image, called)
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        why = str(error) or type(error).__name__
        why = "it is none of PNG, JPEG, WebP, GIF and BMP" if "cannot identify" in why else why
        raise UsageError(f"{called}: is no image that can be read: {why:.120}") from None


def _of_pillow(image: "Image.Image", called: str) -> U8:
    _check_size(*image.size, called)
    if image.mode not in MODES:  # of which Pillow makes white, or nothing
        what = f"its values are no 8 bits a channel (Pillow's mode {image.mode})"
        raise UsageError(f"{called}: {what}: save it as RGB or grey of 8 bits")
    width, height = image.size
    found = np.empty((height, width, 3), np.uint8)
    try:
        for top in range(0, height, rows := max(1, BAND // width)):
            found[top : top + rows] = _band(image.crop((0, top, width, min(top + rows, height))))
    except OSError as error:
        raise UsageError(f"{called}: is damaged: {error!s:.120}: give it whole") from None
    except ValueError as error:
        raise UsageError(f"{called}: cannot be read: {error!s:.120}: give one that is open") from None
    return found


def _band(image: "Image.Image") -> U8:
    """Pixels of some rows of an image, on white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image.convert("RGB"))


def _check_size(width: int, height: int, called: str) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        most = f"{MOST_PIXELS // 1_000_000} million"
        raise UsageError(f"{called}: has {width} x {height} pixels: give one of 1 to {most}, scaled down if need be")
    if max(width, height) > MOST_EDGE:
        raise UsageError(f"{called}: has {width} x {height} pixels, at most {MOST_EDGE} in a row: scale it down")
