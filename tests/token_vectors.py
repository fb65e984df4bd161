"""Token id vectors of llama.cpp's vocabulary tests, and a sentencepiece model made from a GGUF vocabulary."""

import struct
from pathlib import Path

# Vocabulary -> its vectors that come out as llama.cpp's, and those there are
PASSED = {
    "llama-spm": (47, 47),
    "phi-3": (47, 47),
    "gpt-2": (47, 47),
    "falcon": (47, 47),
    "mpt": (47, 47),
    "deepseek-coder": (47, 47),
    "deepseek-llm": (47, 47),
    "bert-bge": (47, 47),
}
SEPARATOR = "\n__ggml_vocab_test__\n"


def read_vectors(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """(text, ids without special tokens) pairs."""
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split(SEPARATOR)
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=False)]


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def sentencepiece_model(
    pieces: list[tuple[str, float, int]], add_dummy_prefix: bool = True, remove_extra_whitespaces: bool = False
) -> bytes:
    """A BPE `tokenizer.model` with byte fallback from (piece, score, type): sentencepiece's ModelProto, by hand.

    Types: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte.
    """
    proto = b"".join(
        _field(1, _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
        for piece, score, kind in pieces
    )
    trainer = _number(3, 2) + _number(35, 1)  # model_type BPE, byte_fallback
    flags = _number(3, int(add_dummy_prefix)) + _number(4, int(remove_extra_whitespaces)) + _number(5, 1)
    normalizer = _field(1, b"identity") + flags
    return proto + _field(2, trainer) + _field(3, normalizer)
