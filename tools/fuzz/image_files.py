"""Images: small files of each kind that Pillow writes, changes that know chunks, blocks and segments, and reading."""

import io
import random
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import mutate
import numpy as np
from PIL import Image

MOST_PIXELS = 32_000_000  # as 300 MB hold: the bound of larger machines is another number
SIZES = [(5656, 5656), (8000, 4000), (65535, 488), (488, 65535), (1, 65535), (5000, 5000), (6000, 6000), (0, 5), (3, 3)]
EDGES = [0, 1, 2, 255, 256, 4000, 5600, 8000, 16383, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


def files(folder: Path) -> list[bytes]:
    """Sound ones, in the modes that each kind has."""
    y, x = np.mgrid[:24, :37]
    colour = Image.fromarray(np.stack([7 * x % 256, 11 * y % 256, x * y % 256], axis=2).astype(np.uint8))
    clear = colour.copy()
    clear.putalpha(colour.getchannel(0))
    turned = Image.Exif()
    turned[0x0112] = 6
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [(colour, "PNG", {"exif": turned, "dpi": (72, 72)})]
    ways += [(one, "PNG", {}) for one in (clear, clear.convert("LA"), colour.quantize(16), colour.convert("1"))]
    ways += [
        (clear.quantize(8), "PNG", {"transparency": 0}),
        (clear, "PNG", {"save_all": True, "append_images": [clear]}),
    ]
    ways += [(colour, "JPEG", {"exif": turned}), (colour, "JPEG", {"progressive": True, "comment": "of stripes"})]
    ways += [(colour.convert("CMYK"), "JPEG", {}), (colour.convert("L"), "JPEG", {"subsampling": 2})]
    ways += [(one, "BMP", {}) for one in (colour, clear, colour.quantize(16), colour.convert("1"))]
    ways += [(clear, "GIF", {}), (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90)], "loop": 0})]
    ways += [(clear, "WEBP", {"lossless": True, "exif": turned}), (colour, "WEBP", {"quality": 40})]
    ways += [(clear, "WEBP", {"save_all": True, "append_images": [clear.rotate(180)]})]
    found = []
    for image, kind, how in ways:
        file = io.BytesIO()
        image.save(file, kind, **how)
        found.append(file.getvalue())
    return found


def change(rng: random.Random, data: bytes) -> bytes:
    """An image of another size, which may be sound; its parts changed, with checksums that are right again; or any
    bytes."""
    if rng.random() < 0.1 and data[:4] != b"RIFF" and data[:2] != b"\xff\xd8":
        return _resized(data, *rng.choice(SIZES))
    parts = _parts(data) if rng.random() < 0.8 else []
    if not parts:
        return mutate.in_bytes(rng, data)
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(parts))
        name, body = parts[at]
        match rng.randrange(8):
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = [parts[at]] * rng.choice([1, 2, 300])
            case 2:
                parts.insert(rng.randrange(len(parts) + 1), parts.pop(at))
            case 3 if len(body) >= 4:
                parts[at] = name, _with_number(rng, body)
            case 4 if data[:4] == b"\x89PNG":
                parts[at] = rng.choice([b"tRNS", b"PLTE", b"acTL", b"iCCP", b"zTXt", b"eXIf", name]), body
            case 5 if name == b"IDAT" and rng.random() < 0.5:
                parts[at] = name, zlib.compress(b"\0" * rng.choice([0, 100, 1 << 20, 40 << 20]), 9)
            case _:
                parts[at] = name, mutate.in_bytes(rng, body)
        if not parts:
            break
    return _written(data, parts)


def _resized(data: bytes, width: int, height: int) -> bytes:
    """As large as that: of PNG with as many bytes as it needs, all 0; GIF's frame lies somewhere in it."""
    out = bytearray(data)
    if data[:2] == b"BM":
        struct.pack_into("<ii", out, 18, width, height)
    elif data[:3] == b"GIF":
        struct.pack_into("<HH", out, 6, width & 0xFFFF, height & 0xFFFF)
    else:
        struct.pack_into(">II", out, 16, width, height)
        parts = _parts(bytes(out))
        bits = out[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[out[25]]
        first = next(at for at, (name, _) in enumerate(parts) if name == b"IDAT")
        parts[first] = b"IDAT", _zeros(height * (1 + -(-width * bits // 8)))
        return _written(data, parts)
    return bytes(out)


@lru_cache(64)
def _zeros(count: int) -> bytes:
    """So many, compressed, without having them all in memory."""
    packer, piece = zlib.compressobj(1), bytes(1 << 20)
    found = [packer.compress(piece[: min(len(piece), count - at)]) for at in range(0, count, len(piece))]
    return b"".join([*found, packer.flush()])


def _with_number(rng: random.Random, body: bytes) -> bytes:
    """One of the numbers in the beginning of a part is another: sizes stand there."""
    width, order = rng.choice([2, 4]), ">" if rng.random() < 0.5 else "<"
    at = rng.randrange(min(len(body) - width, 30) + 1)
    number = struct.pack(f"{order}Q", rng.choice(EDGES))
    return body[:at] + (number[-width:] if order == ">" else number[:width]) + body[at + width :]


def _parts(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of the parts behind a file's first bytes: chunks of PNG and WebP, segments of JPEG up to the
    pixels; none of the others, whose blocks have no lengths."""
    found, at = [], 0
    if data[:4] == b"\x89PNG":
        at = 8
        while at + 12 <= len(data):
            (size,) = struct.unpack_from(">I", data, at)
            found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
            at += 12 + size
    elif data[:4] == b"RIFF":
        at = 12
        while at + 8 <= len(data):
            (size,) = struct.unpack_from("<I", data, at + 4)
            found.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
            at += 8 + size + size % 2
    elif data[:2] == b"\xff\xd8":
        at = 2
        while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:
            (size,) = struct.unpack_from(">H", data, at + 2)
            found.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
            at += 2 + size
        found.append((b"", data[at:]))
    return found


def _written(data: bytes, parts: list[tuple[bytes, bytes]]) -> bytes:
    """As `_parts` reads them, after the first bytes of a file."""
    if data[:4] == b"\x89PNG":
        sealed = (name + body for name, body in parts)
        return data[:8] + b"".join(
            struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in sealed
        )
    if data[:4] == b"RIFF":
        whole = b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in parts)
        return b"RIFF" + struct.pack("<I", len(whole) + 4) + b"WEBP" + whole
    return data[:2] + b"".join(
        name + (struct.pack(">H", min(len(body) + 2, 65535)) if name else b"") + body for name, body in parts
    )


def read(path: Path) -> None:
    """Pixels, or a UsageError; the same ones from a path and from bytes."""
    from edgeq.errors import EdgeqError, UsageError
    from edgeq.vision import picture

    picture.MOST_PIXELS = MOST_PIXELS
    try:
        found = picture.pixels(path)
    except EdgeqError as error:
        assert type(error) is UsageError, f"{type(error).__name__}: {error}"
        assert str(error).startswith(f"{path}: "), "the file is not named"
        raise
    height, width, channels = found.shape
    assert found.dtype == np.uint8 and channels == 3 and 0 < height * width <= MOST_PIXELS, found.shape
    if height * width < 1 << 16:
        assert (picture.pixels(path.read_bytes()) == found).all()
