"""What is an image, and what is refused as one."""

import io
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from seeing_model import picture

from edgeq.errors import UsageError
from edgeq.vision import picture as reading
from edgeq.vision.picture import pixels


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_all_forms_are_the_same_image(tmp_path: Path) -> None:
    array = picture("wide")
    image = Image.fromarray(array)
    (tmp_path / "a.png").write_bytes(encoded(image))
    for form in (array, image, encoded(image), tmp_path / "a.png", str(tmp_path / "a.png"), encoded(image, "BMP")):
        np.testing.assert_array_equal(pixels(form), array)


def test_grey_and_transparent() -> None:
    grey = picture("tall")[:, :, 0]
    np.testing.assert_array_equal(pixels(grey), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(pixels(Image.fromarray(grey)), np.stack([grey] * 3, axis=2))
    clear = np.zeros((4, 5, 4), np.uint8)
    clear[:, :2, 3] = 255
    found = pixels(encoded(Image.fromarray(clear, "RGBA")))
    assert (found[:, :2] == 0).all()
    assert (found[:, 2:] == 255).all()


def test_bands_of_an_image_are_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    array = picture("tall")
    clear = Image.fromarray(np.dstack([array, array[:, :, 0]]), "RGBA")
    images = [clear, clear.convert("PA"), clear.convert("LA"), Image.fromarray(array).convert("P")]
    images.append(Image.open(io.BytesIO(encoded(images[-1], "GIF"))))
    images.append(Image.open(io.BytesIO(encoded(clear.quantize(16), "PNG"))))
    whole = [pixels(image) for image in images]
    monkeypatch.setattr("edgeq.vision.picture.BAND", 7 * 40)
    for image, expected in zip(images, whole, strict=True):
        np.testing.assert_array_equal(pixels(image), expected)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "La", "RGBa"])
def test_values_that_would_become_white(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    with pytest.raises(UsageError, match=f"mode {mode}.: save it as RGB"):
        pixels(image)
    if mode == "I;16":
        with pytest.raises(UsageError, match=r"mode I.*save it as RGB"):
            pixels(encoded(image), "a.png")


def closed() -> Image.Image:
    image = Image.open(io.BytesIO(encoded(Image.fromarray(picture("wide")))))
    image.close()
    return image


def test_a_photograph_stands_upright() -> None:
    array = picture("wide")
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(array).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(file.getvalue()), array[::-1, ::-1])


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it is so large."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks
    )


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (b"", "no image that can be read"),
        (b"GIF89a", "no image that can be read"),
        (b"hello", "none of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG, JPEG"),
        (bomb(30000, 30000), "no image that can be read: Image size"),
        (bomb(9000, 9000), "9000 x 9000 pixels"),
        (bomb(11000, 9000), "11000 x 9000 pixels"),
        (bomb(10, 10), "no image that can be read"),
        (encoded(Image.fromarray(picture("wide")))[:-200], "no image that can be read"),
        (encoded(Image.new("1", (70000, 1))), "70000 x 1 pixels, at most 65536 in a row"),
        (np.zeros((65537, 1), np.uint8), "1 x 65537 pixels, at most 65536 in a row"),
        (closed(), "cannot be read: Operation on closed image: give one that is open"),
        (7, "is a int: give a path"),
        (np.zeros((4, 4, 4), np.uint8), r"array of uint8 \[4, 4, 4\]"),
        (np.zeros((4, 4, 3)), r"array of float64 \[4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"array of uint8 \[0, 4, 3\]"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), "9000 x 9000 pixels"),
    ],
)
def test_what_is_no_image_is_one_line(given: object, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        pixels(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.png: cannot be read: No such file"):
        pixels(tmp_path / "nothing.png")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UsageError, match=r"a\.png: is no image"):
        pixels(tmp_path / "a.png")


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(UsageError, match=r"pip install 'edgeq\[vision\]'"):
        pixels(b"hello", "x.png")
    np.testing.assert_array_equal(pixels(picture("tall")), picture("tall"))


def test_threads_leave_warnings_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that began first ends first."""
    before, real, content = list(warnings.filters), reading._of_pillow, encoded(Image.fromarray(picture("wide")))
    begun, ends = threading.Semaphore(0), {"a": threading.Event(), "b": threading.Event()}

    def slow(image: Image.Image, called: str) -> np.ndarray:
        begun.release()
        ends[called].wait(10)
        return real(image, called)

    monkeypatch.setattr(reading, "_of_pillow", slow)
    threads = [threading.Thread(target=pixels, args=(content, called)) for called in ends]
    for thread in threads:
        thread.start()
        begun.acquire(timeout=0.2)
    for thread, end in zip(threads, ends.values(), strict=True):
        end.set()
        thread.join()
    assert warnings.filters == before
