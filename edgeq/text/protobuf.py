"""As much of protobuf's encoding as a sentencepiece model needs."""

from collections.abc import Iterator
from typing import Any

from edgeq.errors import TokenizerError

_LENGTHS = {1: 8, 5: 4}  # wire types of a fixed size


def number(field: int, value: int) -> bytes:
    """A field that is a number, 0 or more."""
    return _render(field << 3) + _render(value)


def message(field: int, payload: bytes) -> bytes:
    """A field that is bytes, a text, or a message of its own."""
    return _render(field << 3 | 2) + _render(len(payload)) + payload


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, number or bytes) of a message. Raises TokenizerError for one that is damaged."""
    for field, value, _ in fields_as_written(data):
        yield field, value


def fields_as_written(data: bytes) -> Iterator[tuple[int, Any, bytes]]:
    """As `fields`, and the bytes that the whole field takes."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _read(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read(data, at)
            yield tag >> 3, value, data[start:at]
            continue
        length = _LENGTHS.get(kind)
        if length is None:
            if kind != 2:
                raise TokenizerError("tokenizer.model is damaged: download the checkpoint's own")
            length, at = _read(data, at)
        yield tag >> 3, data[at : at + length], data[start : at + length]
        at += length


_SMALL = [bytes([value]) for value in range(128)]  # nearly all there are: a vocabulary has millions of them


def _render(value: int) -> bytes:
    """A base-128 number."""
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _read(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise TokenizerError("tokenizer.model is damaged: download the checkpoint's own")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
