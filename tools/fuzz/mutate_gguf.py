"""Changes of GGUF files."""

import struct
from functools import lru_cache
from typing import Any

from mutate import Rng, in_bytes

from edgeq.container import gguf_values as gguf

_WRITTEN: dict[int, bytes] = {}  # arrays of sound files, by identity: they are written again and again
Value = tuple[int, Any]  # GGUF's type, and the value; of an array the type of its elements and these


@lru_cache(16)
def gguf_parts(data: bytes) -> tuple[list[tuple[bytes, Value]], list[list[Any]], bytes]:
    """Keys and values, tensors [name, dims, type, offset], and what lies behind them."""

    def fail(what: str) -> Any:
        raise ValueError(what)

    cursor = gguf.Cursor(memoryview(data), fail)
    cursor.at = 8
    tensors, keys = cursor.number(gguf.U64, ""), cursor.number(gguf.U64, "")

    def value(kind: int) -> Value:
        if kind == gguf.STRING:
            return kind, cursor.string("").encode("utf-8", "surrogateescape")
        if kind != gguf.ARRAY:
            return kind, cursor.number(kind, "")
        element = cursor.number(gguf.U32, "")
        return kind, (element, [value(element)[1] for _ in range(cursor.number(gguf.U64, ""))])

    values = [(cursor.string("").encode(), value(cursor.number(gguf.U32, ""))) for _ in range(keys)]
    entries = []
    for _ in range(tensors):
        name = cursor.string("").encode()
        dims = [cursor.number(gguf.U64, "") for _ in range(cursor.number(gguf.U32, ""))]
        entries.append([name, dims, cursor.number(gguf.U32, ""), cursor.number(gguf.U64, "")])
    _WRITTEN.update({id(content): _gguf_value((kind, content)) for _, (kind, content) in values if kind == gguf.ARRAY})
    return values, entries, data[-(-cursor.at // 32) * 32 :]


def _gguf_value(value: Value) -> bytes:
    kind, content = value
    if kind == gguf.STRING:
        return struct.pack("<Q", len(content)) + content
    if kind == gguf.ARRAY:
        if (written := _WRITTEN.get(id(content))) is not None:
            return written
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(_gguf_value((element, item)) for item in items)
    code = gguf.SCALARS.get(kind, "I")
    if code in "fd":
        try:
            return struct.pack("<" + code, content)
        except OverflowError:
            return struct.pack("<" + code, float("inf"))
    width = struct.calcsize("<" + code)
    return (int(content) & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def gguf_text(values: list[tuple[bytes, Value]], entries: list[list[Any]], data: bytes, version: int = 3) -> bytes:
    """The file."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", version, len(entries), len(values)))
    for key, value in values:
        out += struct.pack("<Q", len(key)) + key + struct.pack("<I", value[0]) + _gguf_value(value)
    for name, dims, kind, offset in entries:
        out += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        out += struct.pack("<IQ", kind, offset)
    return bytes(out) + bytes(-len(out) % 32) + data


_STRINGS = [b"", b"\xff\xfe", b"\x1b[2J", b"a" * 70000, b"\xed\xa0\x80", "é".encode(), b"<s>", b"llama", b"gpt2", b"\0"]
INTS = [0, 1, 2, 3, 255, 32767, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1]
_FLOATS = [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e300, 5e-324, 1e-30, 3.0]


def gguf_value(rng: Rng, kind: int | None = None, depth: int = 0) -> Value:
    """Any value of a type."""
    kind = rng.randrange(13) if kind is None else kind
    if kind == gguf.STRING:
        return kind, rng.choice(_STRINGS)
    if kind in (gguf.F32, gguf.F64):
        return kind, rng.choice(_FLOATS)
    if kind != gguf.ARRAY:
        return kind, rng.choice(INTS)
    element = rng.randrange(13 if depth < 3 else 8)
    return kind, (element, [gguf_value(rng, element, depth + 1)[1] for _ in range(rng.choice([0, 1, 3, 50]))])


def in_gguf(rng: Rng, data: bytes) -> bytes:
    """Metadata, tensors or weights changed; or any bytes."""
    if rng.random() < 0.15:
        return in_bytes(rng, data, 8192)
    values, entries, payload = gguf_parts(data)
    values, entries = list(values), [list(entry) for entry in entries]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        match rng.randrange(10):
            case 0 | 1 | 2 if values:
                at = rng.randrange(len(values))
                key, (kind, _) = values[at]
                values[at] = key, gguf_value(rng, kind if rng.random() < 0.5 else None)
            case 3 if values:
                at = rng.randrange(len(values))
                key, (kind, content) = values[at]
                if kind == gguf.ARRAY and content[1]:
                    items = list(content[1])
                    for _ in range(rng.choice([1, 5])):
                        items[rng.randrange(len(items))] = gguf_value(rng, content[0])[1]
                    if rng.random() < 0.3:
                        items = items[: rng.randrange(len(items))]
                    values[at] = key, (kind, (content[0], items))
                elif kind in (gguf.F32, gguf.F64):
                    values[at] = key, (gguf.F64, rng.choice(_FLOATS))
                elif isinstance(content, int):
                    values[at] = key, (kind, max(0, content + rng.choice([-1, 1, 8, -8])))
            case 4 if values:
                values.pop(rng.randrange(len(values)))
            case 5 if values:
                key, value = rng.choice(values)
                extra = [b"general.alignment", b"split.count", b"tokenizer.chat_template", b"", b"\xff", b"\x1b]0;x\7"]
                values.insert(
                    0, (rng.choice([key, *extra, b"llama.expert_count", b"llama.rope.scaling.factor"]), value)
                )
            case 6 if entries:
                entry = rng.choice(entries)
                entry[0] = rng.choice(
                    [*_STRINGS, b"blk.0.attn_q.bias", b"blk.0.new name", entry[0] + b"x", b"output.weight"]
                )
            case 7 if entries:
                entry = rng.choice(entries)
                entry[1] = rng.choice(
                    [
                        entry[1][::-1],
                        [],
                        [*entry[1], 1],
                        [0],
                        [1 << 62],
                        [*entry[1], 1, 1, 1],
                        [d + rng.choice([-1, 1, 32]) for d in entry[1]],
                    ]
                )
                entry[1] = [max(0, d) for d in entry[1]]
            case 8 if entries:
                entry = rng.choice(entries)
                entry[2 + (rng.random() < 0.5)] = rng.choice([*range(45), *INTS[:9], entry[3] + 32, entry[3] ^ 1])
                entry[2] &= 0xFFFFFFFF
            case 9:
                payload = in_bytes(rng, payload, len(payload)) if payload else b"x"
            case _ if entries:
                entries.insert(rng.randrange(len(entries)), list(rng.choice(entries)))
    return gguf_text(values, entries, payload, rng.choice([3, 3, 3, 3, 3, 2, 1, 4, 0x03000000]))
