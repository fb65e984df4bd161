"""Changes of files whose headers are sealed: .eqf files and those of kernels."""

import struct
import zlib
from hashlib import sha256
from typing import Any

from mutate import Rng, copied, in_bytes, in_json, parsed, text_of


def eqf(rng: Rng, data: bytes) -> bytes:
    """The header changed and sealed again; or an asset; or any bytes."""
    length = struct.unpack_from("<Q", data, 12)[0]
    document = copied(parsed(data[24 : 24 + length]))
    payload = bytearray(data)
    choice = rng.random()
    if choice < 0.15:
        return in_bytes(rng, data)
    if choice < 0.4:  # weights, with the right checksum
        entry = rng.choice(document["tensors"])
        for _ in range(4):
            at = entry["offset"] + rng.randrange(max(entry["nbytes"] - 3, 1))
            payload[at : at + 4] = rng.choice([b"\0\0\x80\x7f", b"\0\0\xc0\xff", b"\xff\xff\x7f\x7f", rng.randbytes(4)])
        _seal(entry, payload)
    elif choice < 0.55:
        entry = rng.choice(document["assets"])
        content = bytes(payload[entry["offset"] : entry["offset"] + entry["nbytes"]])
        changed = in_bytes(rng, content, len(content))[: entry["nbytes"]]
        payload[entry["offset"] : entry["offset"] + entry["nbytes"]] = changed.ljust(entry["nbytes"], b" ")
        _seal(entry, payload)
    else:
        part = rng.choice(["metadata", "metadata", "tensors", "assets", None])
        document = in_json(rng, document) if part is None else {**document, part: in_json(rng, document[part])}
    text = text_of(document)
    if len(text) > length:
        return bytes(payload)
    text = text.ljust(length)
    payload[24 : 24 + length] = text
    struct.pack_into("<I", payload, 20, zlib.crc32(text))
    return bytes(payload)


def _seal(entry: dict[str, Any], payload: bytearray) -> None:
    entry["crc32"] = f"{zlib.crc32(payload[entry['offset'] : entry['offset'] + entry['nbytes']]):08x}"


def kernels(rng: Rng, data: bytes) -> bytes:
    """A file of kernels with another header, sealed again; or any bytes."""
    if rng.random() < 0.3:
        return in_bytes(rng, data)
    length = struct.unpack_from("<I", data, 12)[0]
    text = text_of(in_json(rng, parsed(data[48 : 48 + length])))
    rest = text + bytes(-(48 + len(text)) % 4096) + data[-(-(48 + length) // 4096) * 4096 :]
    before = data[:12] + struct.pack("<I", rng.choice([len(text)] * 9 + [len(text) + 1]))
    return before + sha256(before + rest).digest() + rest
