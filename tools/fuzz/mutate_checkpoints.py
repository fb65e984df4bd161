"""Changes of safetensors files and of torch's."""

import io
import pickletools
import struct
import zipfile

from mutate import Rng, in_bytes, in_json, parsed, text_of


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
            archive.writestr(zipfile.ZipInfo(name), content, kind)  # a date of its own: the file is always the same
    found = out.getvalue()
    return in_bytes(rng, found, len(found)) if rng.random() < 0.2 else found
