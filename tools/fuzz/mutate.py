"""Changes that know what a file is made of: most of what comes out gets past the first checks of its reader."""

import io
import json
import marshal
import pickletools
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any

from edgeq.container import gguf_values as gguf
from edgeq.text.protobuf import fields_as_written, message, number

Rng = random.Random


RAWS: list[str] = []  # what is written into JSON as it is, in place of "\1number\1"


def raw(text: str) -> str:
    """What stands for it until JSON is written."""
    RAWS.append(text)
    return f"\1{len(RAWS) - 1}\1"


NUMBERS: list[Any] = [0, 1, -1, 2, 3, 7, 255, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63, -(1 << 63), 1 << 64]
NUMBERS += [10**400, -(10**400), 0.0, -0.0, 0.5, 1e-45, 1e38, 3.5e38, 1e308, 5e-324, raw("1e400"), raw("-1e400")]
NUMBERS += [raw("NaN"), raw("Infinity"), raw("1" * 5000), raw("1e99999"), True, False]
TEXTS: list[Any] = ["", "a", "\x1b[31m", "\0", "\n", "٣", "²", "../x", "/etc/passwd", "a" * 20000, raw('"\\ud800"')]
TEXTS += ["é" * 300, "<s>", "NaN", "-1", "1" * 5000, "\u202e", "%s{}", "__class__", "\x85\u2028", "[" * 5000]
OTHERS: list[Any] = [
    None,
    [],
    {},
    [[]],
    {"": ""},
    [None] * 3,
    {"a": {"b": {}}},
    [0] * 500,
    raw("[" * 2000 + "]" * 2000),
]


def nasty(rng: Rng) -> Any:
    """A JSON value that somebody may not have thought of."""
    return copied(rng.choice(rng.choice([NUMBERS, TEXTS, OTHERS])))


def text_of(document: Any) -> bytes:
    """JSON, with what is raw as it is."""
    text = json.dumps(document)
    if "\\u0001" in text:
        text = re.sub(r'"\\u0001(\d+)\\u0001"', lambda found: RAWS[int(found[1])], text)
    return text.encode("utf-8", "surrogatepass")


@lru_cache(16)
def parsed(data: bytes) -> Any:
    """What JSON holds; nobody changes it."""
    return json.loads(data)


def copied(value: Any) -> Any:
    """A copy of what JSON holds."""
    return marshal.loads(marshal.dumps(value))


def places(value: Any, most: int = 4000) -> list[tuple[Any, Any]]:
    """(container, key) of all values within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < most:
        one = waiting.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, item in items:
            found.append((one, key))
            waiting.append(item)
    return found


def in_json(rng: Rng, document: Any) -> Any:
    """A copy of a JSON value with one to three changes."""
    copy = copied(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        owner, key = rng.choice(places(copy) or [({}, "")])
        if key not in _keys(owner):
            continue
        match rng.randrange(8):
            case 0:
                owner.pop(key, None) if isinstance(owner, dict) else owner.pop(key)
            case 1 if isinstance(owner, dict):
                owner[rng.choice(TEXTS)] = owner.pop(key, None)
            case 2 if isinstance(owner, list):
                owner[key:key] = copied([owner[key]] * rng.choice([1, 2, 1000]))
            case 3:
                other, name = rng.choice(places(copy))
                owner[key] = copied(other[name]) if name in _keys(other) else None
            case 4 if isinstance(owner[key], int | float):
                owner[key] = rng.choice(
                    [
                        owner[key] + 1,
                        owner[key] - 1,
                        -owner[key],
                        owner[key] * 2,
                        owner[key] << 20 if isinstance(owner[key], int) else owner[key] / 0.3,
                    ]
                )
            case _:
                owner[key] = nasty(rng)
    return copy


def _keys(owner: Any) -> Any:
    return owner.keys() if isinstance(owner, dict) else range(len(owner))


def in_bytes(rng: Rng, data: bytes, head: int = 4096) -> bytes:
    """A few bytes changed, mostly near the beginning; or a piece cut out, doubled or cut off."""
    if not data:
        return rng.randbytes(5)
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(min(len(out), head) if rng.random() < 0.8 else len(out))
        match rng.randrange(6):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                width = rng.choice([2, 4, 8])
                out[at : at + width] = rng.choice([0, 1, 0x7F, 0xFF]).to_bytes(1, "little") * width
            case 3:
                del out[at : at + rng.choice([1, 8, 64])]
            case 4:
                out[at:at] = out[at : at + rng.choice([1, 8, 64])]
            case _ if rng.random() < 0.3:
                del out[at:]
        if not out:
            break
    return bytes(out)


# ---- .eqf ----


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


# ---- GGUF ----

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
_INTS = [0, 1, 2, 3, 255, 32767, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1]
_FLOATS = [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e300, 5e-324, 1e-30, 3.0]


def gguf_value(rng: Rng, kind: int | None = None, depth: int = 0) -> Value:
    """Any value of a type."""
    kind = rng.randrange(13) if kind is None else kind
    if kind == gguf.STRING:
        return kind, rng.choice(_STRINGS)
    if kind in (gguf.F32, gguf.F64):
        return kind, rng.choice(_FLOATS)
    if kind != gguf.ARRAY:
        return kind, rng.choice(_INTS)
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
                entry[2 + (rng.random() < 0.5)] = rng.choice([*range(45), *_INTS[:9], entry[3] + 32, entry[3] ^ 1])
                entry[2] &= 0xFFFFFFFF
            case 9:
                payload = in_bytes(rng, payload, len(payload)) if payload else b"x"
            case _ if entries:
                entries.insert(rng.randrange(len(entries)), list(rng.choice(entries)))
    return gguf_text(values, entries, payload, rng.choice([3, 3, 3, 3, 3, 2, 1, 4, 0x03000000]))


# ---- checkpoints ----


def safetensors(rng: Rng, data: bytes) -> bytes:
    """The JSON header changed; the data longer or shorter; or any bytes."""
    if rng.random() < 0.2:
        return in_bytes(rng, data, 1024)
    length = struct.unpack_from("<Q", data)[0]
    text = text_of(in_json(rng, parsed(data[8 : 8 + length])))
    if rng.random() < 0.1:
        text = in_bytes(rng, text)
    rest = data[8 + length :]
    rest = rng.choice([rest] * 8 + [rest[:-1], rest + b"\0", rest[: len(rest) // 2], b""])
    return struct.pack("<Q", rng.choice([len(text)] * 9 + [len(text) + 1])) + text + rest


def opcodes(data: bytes) -> list[bytes]:
    """A pickle, opcode by opcode."""
    starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


_OPCODES = [
    b"]",
    b"}",
    b")",
    b"(",
    b"\x8f",
    b"0",
    b"2",
    b"1",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"\x81",
    b"\x92",
    b"Q",
]
_OPCODES += [b"\x94", b"\x93", b"\x91", b"\x90", b".", b"N", b"\x88", b"t", b"l", b"d", b"o", b"\x85", b"\x98", b"\x97"]
_OPCODES += [
    b"cbuiltins\neval\n",
    b"cos\nsystem\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nHalfStorage\n",
    b"i\xff\n\n",
]
_OPCODES += [b"cbuiltins\ngetattr\n", b"r\xff\xff\xff\x7f", b"p999999999\n", b"q\xff", b"h\xff", b"j\xff\xff\xff\xff"]
_OPCODES += [
    b"I" + b"9" * 5000 + b"\n",
    b"L1" + b"0" * 4400 + b"L\n",
    b"\x8a\xff" + b"\xff" * 255,
    b"F1e999\n",
    b"S'x'\n",
]
_OPCODES += [
    b"\x96" + b"\xff" * 7 + b"\x00",
    b"\x8e\0\0\0\0\1\0\0\0",
    b"\x95" + b"\xff" * 8,
    b"\x80\xff",
    b"P1\n",
    b"S\xff\n",
]
_OPCODES += [
    b"X\2\0\0\0\xff\xff",
    b"\x8c\1\xed",
    b"\x82\1",
    b"K\1",
    b"J\xff\xff\xff\xff",
    b"G\x7f\xf0\0\0\0\0\0\0",
    b"Vx\\ud800\n",
]


def pickle(rng: Rng, data: bytes) -> bytes:
    """A pickle with opcodes put in, left out, doubled, swapped."""
    parts = opcodes(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                parts.pop(at)
            case 1 | 2:
                parts.insert(at, rng.choice(_OPCODES) * rng.choice([1, 1, 1, 2, 1000]))
            case 3:
                parts.insert(at, rng.choice(parts))
            case 4:
                other = rng.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
            case _:
                parts[at] = in_bytes(rng, parts[at])
        if not parts:
            break
    return b"".join(parts)


def torch(rng: Rng, data: bytes) -> bytes:
    """The pickle, the archive's members or its bytes changed."""
    if rng.random() < 0.2:
        return in_bytes(rng, data, len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out, kind = io.BytesIO(), zipfile.ZIP_STORED
    action = rng.randrange(10)
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl") and action < 7:
                content = pickle(rng, content)
            elif action == 7 and rng.random() < 0.3:
                name = rng.choice(
                    [name + "x", "data.pkl", "x/data.pkl", "\ufffd" * 300, name.upper(), "a\x1b/data.pkl"]
                )
            elif action == 8 and rng.random() < 0.3:
                content = rng.choice([b"", content[:-1], content * 2, b"big", bytes(300_000)])
            kind = zipfile.ZIP_DEFLATED if action == 9 and rng.random() < 0.5 else zipfile.ZIP_STORED
            archive.writestr(name, content, kind)
    found = out.getvalue()
    return in_bytes(rng, found, len(found)) if rng.random() < 0.2 else found


# ---- tokenizers, templates, kernels ----


def tokenizer_model(rng: Rng, data: bytes) -> bytes:
    """A sentencepiece model with fields changed."""
    if rng.random() < 0.2:
        return in_bytes(rng, data, len(data))
    parts = [(field, value, written) for field, value, written in fields_as_written(data)]
    for _ in range(rng.choice([1, 1, 2, 10])):
        at = rng.randrange(len(parts))
        field, value, written = parts[at]
        match rng.randrange(5):
            case 0:
                parts.pop(at)
                parts = parts or [(1, b"", b"")]
                continue
            case 1:
                parts.insert(at, rng.choice(parts))
                continue
            case 2 if isinstance(value, bytes):
                written = message(field, _piece(rng, value))
            case 3 if isinstance(value, bytes):
                written = message(field, in_bytes(rng, value, len(value) + 1))
            case _:
                extra = number(rng.choice([3, 24, 35, 40, 41, 42, 43]), rng.choice(_INTS))
                extra = rng.choice([extra, message(2, rng.randbytes(rng.choice([4, 40, 4000])))])
                written = message(field, (value if isinstance(value, bytes) else b"") + extra)
        parts[at] = field, value, written
    return b"".join(written for _, _, written in parts)


def _piece(rng: Rng, value: bytes) -> bytes:
    text = rng.choice([b"", b"\xff", b"\xed\xa0\x80", b"\0", b"a" * 5000, b"<0x0A>", "▁".encode(), rng.randbytes(3)])
    score = rng.choice([b"", b"\x15" + struct.pack("<f", rng.choice([0.0, float("nan"), float("inf"), -1e38]))])
    return message(1, text) + score + (number(3, rng.randrange(9)) if rng.random() < 0.7 else b"")


EXPRESSIONS = [
    "messages",
    "messages[0].content",
    "x",
    "1e400|int",
    "'a' * 10",
    "range(3)",
    "namespace(a=1)",
    "bos_token",
]
EXPRESSIONS += [
    "messages[0]['role']",
    "[1, [2]]",
    "{'a': 1}",
    "loop.index",
    "undefined.x.y",
    "'%s' % 1",
    "''|join",
    "dict()",
]
EXPRESSIONS += [
    "-1",
    "1 // 0",
    "10 ** 9",
    "'é'",
    "none",
    "true",
    "strftime_now('%Y')",
    "strftime_now('%' * 9)",
    "cycler('a')",
]
EXPRESSIONS += [
    "raise_exception('no')",
    "messages.__class__",
    "''.join(['a'])",
    "'{0.x}'.format(1)",
    "lipsum()",
    "1.0 / 3",
]
EXPRESSIONS += [
    "('a,' * 9).split(',')",
    "messages|tojson(indent=1)",
    "joiner()",
    "self",
    "caller()",
    "varargs",
    "'\\ud800'",
]
FILTERS = [
    "int",
    "float",
    "upper",
    "tojson",
    "length",
    "trim",
    "join(',')",
    "first",
    "last",
    "list",
    "string",
    "sort",
    "abs",
]
FILTERS += [
    "default('d')",
    "replace('a', 'b')",
    "map('upper')",
    "map(attribute='x')",
    "selectattr('a')",
    "items",
    "batch(2)",
]
FILTERS += [
    "center(9)",
    "indent(3)",
    "round(400)",
    "format(1)",
    "groupby('a')",
    "dictsort",
    "unique",
    "wordwrap(0)",
    "slice(0)",
]
FILTERS += [
    "truncate(3)",
    "filesizeformat",
    "xmlattr",
    "urlize",
    "random",
    "reverse",
    "sum",
    "max",
    "pprint",
    "escape",
    "attr('a')",
]
STATEMENTS = [
    "for m in {}",
    "if {}",
    "set x = {}",
    "macro f(a={})",
    "call f({})",
    "filter upper",
    "block b",
    "include {}",
]
STATEMENTS += [
    "import {} as q",
    "endfor",
    "endif",
    "endmacro",
    "else",
    "elif {}",
    "with a = {}",
    "generation",
    "raw",
    "endraw",
]
STATEMENTS += [
    "set x",
    "endset",
    "do {}",
    "break",
    "continue",
    "autoescape {}",
    "extends {}",
    "from {} import a",
    "elif",
]


def expression(rng: Rng, depth: int = 0) -> str:
    """An expression of Jinja's, mostly."""
    left = rng.choice(EXPRESSIONS)
    if depth < 3 and rng.random() < 0.5:
        operator = rng.choice(["+", "-", "*", "~", "in", "==", "<", "and", "%", "//", "**", "is", "if", "."])
        left = f"({left} {operator} {expression(rng, depth + 1)})"
    return left + "".join(f"|{rng.choice(FILTERS)}" for _ in range(rng.choice([0, 0, 1, 2])))


def template(rng: Rng, data: bytes) -> bytes:
    """Pieces of a template put in, left out, swapped."""
    parts = (
        data.decode()
        .replace("}}", "}}\0")
        .replace("%}", "%}\0")
        .replace("{{", "\0{{")
        .replace("{%", "\0{%")
        .split("\0")
    )
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                parts.pop(at)
                parts = parts or [""]
            case 1:
                parts.insert(at, "{{ " + expression(rng) + " }}")
            case 2:
                parts.insert(at, "{% " + rng.choice(STATEMENTS).replace("{}", expression(rng)) + " %}")
            case 3:
                parts[at] = "{{ " + expression(rng) + " }}"
            case 4:
                parts.insert(at, rng.choice(parts) * rng.choice([1, 30]))
            case _:
                parts[at] = in_bytes(rng, parts[at].encode()).decode(errors="replace")
    return "".join(parts).encode("utf-8", "replace")


def kernels(rng: Rng, data: bytes) -> bytes:
    """A file of kernels with another header, sealed again; or any bytes."""
    if rng.random() < 0.3:
        return in_bytes(rng, data)
    length = struct.unpack_from("<I", data, 12)[0]
    text = text_of(in_json(rng, parsed(data[48 : 48 + length])))
    rest = text + bytes(-(48 + len(text)) % 4096) + data[-(-(48 + length) // 4096) * 4096 :]
    before = data[:12] + struct.pack("<I", rng.choice([len(text)] * 9 + [len(text) + 1]))
    return before + sha256(before + rest).digest() + rest


def of_json(rng: Rng, data: bytes) -> bytes:
    """A JSON file changed, or its bytes."""
    return in_bytes(rng, data) if rng.random() < 0.1 else text_of(in_json(rng, parsed(data)))


Mutator = Callable[[Rng, bytes], bytes]
