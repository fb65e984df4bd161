#!/usr/bin/env python3
"""Write `formats/malformed/`: small `.eqf` files that break one rule of `formats/container.md` each.

    python tools/make_malformed.py

Every file is made from one sound file, deterministically. `manifest.json` says for each file which error opening it
(or, where "when" is "verify", checking its checksums) must raise and which words the message must have.
"""

import argparse
import copy
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "formats" / "malformed"
MAGIC = bytes((0x89, 0x45, 0x51, 0x46, 0x0D, 0x0A, 0x1A, 0x0A))
VERSION, REQUIRING = 2, 3
START = 1024  # of the first tensor; readers take any multiple of 64, and small files are easier to keep

Header = dict[str, Any]


def payload() -> dict[str, bytes]:
    """The sound file's contents in order: two tensors and an asset."""
    return {
        "token_embd.weight": bytes(i * 7 % 251 for i in range(16 * 8 * 2)),  # F16 [3, 8]: one panel
        "output_norm.weight": struct.pack("<8f", *range(8)),
        "tokenizer.json": b'{"model": {}}',
    }


def sound_header() -> Header:
    """The header of the sound file."""
    places: dict[str, dict[str, Any]] = {}
    end = START
    for name, content in payload().items():
        offset = -(-end // 64) * 64
        end = offset + len(content)
        crc = f"{zlib.crc32(content):08x}"
        places[name] = {"name": name, "offset": offset, "nbytes": len(content), "crc32": crc}
    return {
        "file_bytes": end,
        "metadata": {"architecture": "llama", "config": {"model_type": "llama"}},
        "tensors": [
            {**places["token_embd.weight"], "shape": [3, 8], "type": "F16"},
            {**places["output_norm.weight"], "shape": [8], "type": "F32"},
        ],
        "assets": [places["tokenizer.json"]],
    }


def assemble(header: Header | bytes, version: int = VERSION) -> bytes:
    """A file with this header and the sound payload at its usual place; the header's crc32 is right."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (START - 24 - len(text))
    data = bytearray(MAGIC + struct.pack("<IQI", version, len(text), zlib.crc32(text)) + text)
    for entry in sound_header()["tensors"] + sound_header()["assets"]:
        data += bytes(entry["offset"] - len(data)) + payload()[entry["name"]]
    return bytes(data)


def edited(edit: Callable[[Header], object]) -> bytes:
    """The sound file with an edited header."""
    header = copy.deepcopy(sound_header())
    edit(header)
    return assemble(header)


def tensor(**changes: Any) -> bytes:
    """The sound file with changes to the entry of its first tensor; a value of None removes a key."""

    def edit(header: Header) -> None:
        header["tensors"][0] = {k: v for k, v in {**header["tensors"][0], **changes}.items() if v is not None}

    return edited(edit)


def asset(**changes: Any) -> bytes:
    """The sound file with changes to the entry of its asset."""
    return edited(lambda h: h["assets"][0].update(changes))


def requiring(names: Any, version: int = REQUIRING) -> bytes:
    """The sound file, which requires features of its reader."""
    return assemble({**sound_header(), "requires": names}, version)


def replaced(start: int, content: bytes) -> bytes:
    """The sound file with other bytes at `start`."""
    data = bytearray(assemble(sound_header()))
    data[start : start + len(content)] = content
    return bytes(data)


def cases() -> dict[str, tuple[bytes, str, list[str]]]:
    """file -> (content, error class, words its message has)."""
    good = assemble(sound_header())
    end = len(good)
    text = json.dumps(sound_header(), separators=(",", ":")).encode()
    return {
        "empty.eqf": (b"", "FormatError", ["truncated after 0 bytes"]),
        "short_magic.eqf": (good[:5], "FormatError", ["truncated"]),
        "bad_magic.eqf": (replaced(0, b"PK\x03\x04"), "FormatError", ["not an .eqf file"]),
        "text_mode.eqf": (good.replace(b"\r\n", b"\n", 1), "FormatError", ["text-mode"]),
        "gguf.eqf": (b"GGUF" + good[4:], "FormatError", ["GGUF"]),
        "short_prefix.eqf": (good[:20], "FormatError", ["truncated"]),
        "version_1.eqf": (replaced(8, struct.pack("<I", 1)), "UnsupportedError", ["version 1", "convert", "again"]),
        "version_3.eqf": (replaced(8, struct.pack("<I", 3)), "FormatError", ["no 'requires'"]),
        "version_4.eqf": (replaced(8, struct.pack("<I", 4)), "UnsupportedError", ["version 4", "update"]),
        "requires_unknown.eqf": (requiring(["no-such-feature"]), "UnsupportedError", ["'no-such-feature'", "update"]),
        "requires_in_2.eqf": (requiring(["no-such-feature"], VERSION), "UnsupportedError", ["'no-such-feature'"]),
        "requires_string.eqf": (requiring("no-such-feature"), "FormatError", ["'requires'", "list"]),
        "requires_twice.eqf": (requiring(["a", "b", "a"]), "FormatError", ["feature 'a'", "twice"]),
        "requires_name.eqf": (requiring(["No such feature"]), "FormatError", ["'No such feature'", "not allowed"]),
        "header_outside.eqf": (replaced(12, struct.pack("<Q", end)), "FormatError", ["truncated", "header"]),
        "header_huge.eqf": (replaced(12, struct.pack("<Q", 1 << 62)), "FormatError", ["header", "limit"]),
        "header_flipped.eqf": (replaced(40, b"\xff"), "ChecksumError", ["header", "checksum"]),
        "header_crc.eqf": (replaced(20, b"\0\0\0\0"), "ChecksumError", ["header", "checksum"]),
        "header_cut.eqf": (good[:500], "FormatError", ["truncated", "header"]),
        "not_json.eqf": (assemble(text[:-20]), "FormatError", ["not JSON"]),
        "not_utf8.eqf": (assemble(text.replace(b"llama", b"\xff\xfe\xfd\xfc\xfb")), "FormatError", ["not JSON"]),
        "nan.eqf": (assemble(text.replace(b'"F32"', b"NaN")), "FormatError", ["not JSON", "NaN"]),
        "deep.eqf": (assemble(b"[" * 990), "FormatError", ["header"]),
        "array.eqf": (assemble(b"[]"), "FormatError", ["not a JSON object"]),
        "double_key.eqf": (assemble(b'{"file_bytes":1,"file_bytes":1}'), "FormatError", ["twice"]),
        "truncated.eqf": (good[:-1], "FormatError", ["truncated", str(end)]),
        "trailing.eqf": (good + b"\0", "FormatError", ["1 bytes longer"]),
        "no_file_bytes.eqf": (edited(lambda h: h.pop("file_bytes")), "FormatError", ["no 'file_bytes'"]),
        "no_metadata.eqf": (edited(lambda h: h.pop("metadata")), "FormatError", ["no 'metadata'"]),
        "no_architecture.eqf": (edited(lambda h: h["metadata"].pop("architecture")), "FormatError", ["architecture"]),
        "config_list.eqf": (edited(lambda h: h["metadata"].update(config=[])), "FormatError", ["config"]),
        "no_tensors.eqf": (edited(lambda h: h.pop("tensors")), "FormatError", ["no 'tensors'"]),
        "tensors_object.eqf": (edited(lambda h: h.update(tensors={})), "FormatError", ["'tensors'", "list"]),
        "tensor_number.eqf": (edited(lambda h: h["tensors"].append(3)), "FormatError", ["not an object"]),
        "tensor_name.eqf": (tensor(name="../evil"), "FormatError", ["'../evil'", "not allowed"]),
        "tensor_twice.eqf": (tensor(name="output_norm.weight"), "FormatError", ["output_norm.weight", "twice"]),
        "tensor_no_offset.eqf": (tensor(offset=None), "FormatError", ["token_embd.weight", "offset"]),
        "unknown_type.eqf": (tensor(type="Q9_X"), "UnsupportedError", ["token_embd.weight", "Q9_X"]),
        "type_case.eqf": (tensor(type="f16"), "UnsupportedError", ["token_embd.weight", "f16"]),
        "ragged.eqf": (tensor(type="Q4_K"), "FormatError", ["token_embd.weight", "multiple of 32"]),
        "vector_f16.eqf": (tensor(shape=[24]), "FormatError", ["token_embd.weight", "F32"]),
        "shape_empty.eqf": (tensor(shape=[]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_4d.eqf": (tensor(shape=[1, 1, 3, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_zero.eqf": (tensor(shape=[0, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_negative.eqf": (tensor(shape=[-3, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_float.eqf": (tensor(shape=[3.0, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_true.eqf": (tensor(shape=[True, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "shape_huge.eqf": (tensor(shape=[1 << 40, 8]), "FormatError", ["token_embd.weight", "dimensions"]),
        "nbytes_small.eqf": (tensor(nbytes=128), "FormatError", ["token_embd.weight", "128", "256"]),
        "activation_scale.eqf": (
            tensor(activation_scale=0.5),
            "FormatError",
            ["token_embd.weight", "F16 takes no scale"],
        ),
        "activation_scale_text.eqf": (
            tensor(activation_scale="0.5"),
            "FormatError",
            ["token_embd.weight", "not a number"],
        ),
        "shape_large.eqf": (tensor(shape=[17, 8]), "FormatError", ["token_embd.weight", "512"]),
        "offset_unaligned.eqf": (tensor(offset=START + 32), "FormatError", ["token_embd.weight", "multiple of 64"]),
        "offset_negative.eqf": (tensor(offset=-64), "FormatError", ["token_embd.weight", "range"]),
        "offset_float.eqf": (tensor(offset=1024.0), "FormatError", ["token_embd.weight", "offset"]),
        "offset_header.eqf": (tensor(offset=64), "FormatError", ["token_embd.weight", "header"]),
        "offset_outside.eqf": (tensor(offset=1 << 40), "FormatError", ["token_embd.weight", "outside"]),
        "end_outside.eqf": (tensor(offset=START + 192), "FormatError", ["token_embd.weight", "outside"]),
        "overlap.eqf": (tensor(offset=START + 64), "FormatError", ["overlap"]),
        "tensor_crc_form.eqf": (tensor(crc32="0x12"), "FormatError", ["token_embd.weight", "crc32"]),
        "asset_name.eqf": (asset(name="/etc/passwd"), "FormatError", ["/etc/passwd", "not allowed"]),
        "asset_outside.eqf": (asset(nbytes=1 << 20), "FormatError", ["tokenizer.json", "outside"]),
        "asset_overlap.eqf": (asset(offset=START), "FormatError", ["overlap"]),
        "tensor_flipped.eqf": (replaced(START + 5, b"\xaa"), "ChecksumError", ["token_embd.weight", "checksum"]),
        "asset_flipped.eqf": (replaced(end - 3, b"\xaa"), "ChecksumError", ["tokenizer.json", "checksum"]),
    }


def write(folder: Path) -> None:
    """Write every file and the manifest; `sound.eqf` is the file all others were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sound.eqf").write_bytes(assemble(sound_header()))
    manifest = {}
    for name, (content, error, words) in cases().items():
        (folder / name).write_bytes(content)
        when = "verify" if name in ("tensor_flipped.eqf", "asset_flipped.eqf") else "open"
        manifest[name] = {"when": when, "error": error, "words": words}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    write(parser.parse_args().out)
