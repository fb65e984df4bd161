"""The bytes that a vocabulary entry stands for."""

import re
from functools import cache

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte: visible Latin-1 stands for itself, the rest from U+0100 on, in order."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [b for b in range(256) if b not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


def byte_level_bytes(piece: str) -> bytes:
    """Bytes of a byte-level BPE piece; a piece with a character outside the alphabet is taken as plain text."""
    alphabet = _byte_level_alphabet()
    if all(c in alphabet for c in piece):
        return bytes(alphabet[c] for c in piece)
    return piece.encode()


def spaced_bytes(piece: str) -> bytes:
    """Bytes of a sentencepiece piece: `<0xE2>` is one byte, U+2581 is a space."""
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


def word_bytes(piece: str) -> bytes:
    """Bytes of a WordPiece piece: `##` goes on with a word, other pieces begin one."""
    return piece[2:].encode() if piece.startswith("##") and len(piece) > 2 else b" " + piece.encode()
