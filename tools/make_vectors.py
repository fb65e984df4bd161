"""Write the golden vectors of formats/vectors/ and formats/types.json. Deterministic: a second run changes no byte.

    python tools/make_vectors.py

Two kinds of case: "encoded" panels come from a source of f32 weights; "random" panels have random codes and factors
(with finite f16 scales of every size), so that a reader meets every code and sign. The random numbers are
SplitMix64, written out here, so that they depend on no library's version.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgeq.blocks.fields import Fields, empty_fields
from edgeq.blocks.panels import pack_panels, pack_plain
from edgeq.blocks.reference import decode, encode, plain_dtype, to_gguf
from edgeq.blocks.table import BLOCK_TYPES, GROUP, PANEL_ROWS, SUPER_BLOCK, BlockType

FORMATS = Path(__file__).resolve().parents[1] / "formats"
QUANTIZED_SHAPES = [(17, 32), (3, 96), (2, 256), (1, 288), (2, 576)]
LIMITS = {"u6": 64, "s6": 64, "u4": 16, "e8m0": 252}  # of the factors of a scale, where these are no whole bytes
PLAIN_SHAPES = [(17, 32), (3, 40)]


def random_words(seed: int, count: int) -> np.ndarray:
    """`count` u64 of the SplitMix64 generator."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def source_weights(rows: int, cols: int) -> np.ndarray:
    """f32 with a bell shape, sums of four 16-bit words that are exact in f32; row r is 2**-(r % 9) as large."""
    words = random_words(rows * 1000 + cols, rows * cols)
    parts = [(words >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64) for shift in (0, 16, 32, 48)]
    centred = (sum(parts) - 4 * 32768).reshape(rows, cols)
    return (centred / 65536 * 2.0 ** -(np.arange(rows) % 9)[:, None]).astype(np.float32)


def number(bt: BlockType) -> int:
    """A number of its own for each type."""
    return zlib.crc32(bt.name.encode()) if bt.gguf_id is None else bt.gguf_id


def random_fields(rows: int, cols: int, bt: BlockType) -> Fields:
    """Fields with random bits and finite d, dmin."""
    filled = []
    for seed, part in enumerate(vars(empty_fields(rows, cols, bt)).values()):
        if part is None:
            filled.append(None)
            continue
        words = random_words(number(bt) * 100 + seed, part.size)
        if part.dtype == np.float16:  # clear the lowest exponent bit where the exponent is all ones
            bits = (words & np.uint64(0xFFFF)).astype(np.uint16)
            bits = np.where(bits & 0x7C00 == 0x7C00, bits & 0xFBFF, bits)
            filled.append(bits.astype(np.uint16).view(np.float16).reshape(part.shape))
            continue
        if part.dtype == np.float32:
            filled.append(np.ldexp(1 + (words >> np.uint64(41)) * 2.0**-23, (words % np.uint64(40)).astype(int) - 30))
            filled[-1] = (filled[-1] * (1 - (words >> np.uint64(39) & np.uint64(2)).astype(int))).astype("<f4")
            filled[-1] = filled[-1].reshape(part.shape)
            continue
        limit = LIMITS.get(bt.scales, 256) if seed > 0 else bt.levels + 1
        filled.append((words % np.uint64(limit)).astype(np.uint8).view(part.dtype).reshape(part.shape))
    return Fields(*filled)


def random_plain(rows: int, cols: int, name: str) -> np.ndarray:
    """Elements of random bits, none infinite or NaN."""
    dtype = plain_dtype(name)
    bits = random_words(number(BLOCK_TYPES[name]) + 7, rows * cols).astype(f"<u{dtype.itemsize}")
    exponent = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}[name]
    lowest = exponent & -exponent
    finite = np.where(bits & exponent == exponent, bits & ~np.array(lowest, bits.dtype), bits)
    return finite.astype(bits.dtype).view(dtype).reshape(rows, cols)


class Files:
    """The files of the folder, each written once and described for the manifest."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, values: np.ndarray) -> dict[str, object]:
        data = np.ascontiguousarray(values).tobytes()
        (self.folder / name).write_bytes(data)
        return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def case(files: Files, kind: str, bt: BlockType, rows: int, cols: int, panels: np.ndarray) -> dict[str, object]:
    stem = f"{bt.name}-{kind}-{rows}x{cols}"
    entry: dict[str, object] = {"name": stem, "kind": kind, "type": bt.name, "rows": rows, "cols": cols}
    if kind == "encoded":
        entry["source"] = files.put(f"source-{rows}x{cols}.f32", source_weights(rows, cols))
    entry["panels"] = files.put(f"{stem}.panels", panels)
    entry["decoded"] = files.put(f"{stem}.f32", decode(panels, rows, cols, bt.name))
    if bt.gguf_columns and cols % bt.gguf_columns == 0:
        entry["gguf"] = files.put(f"{stem}.gguf", to_gguf(panels, rows, cols, bt.name))
    return entry


def cases(files: Files) -> Iterator[dict[str, object]]:
    for bt in BLOCK_TYPES.values():
        for rows, cols in QUANTIZED_SHAPES if bt.quantized else PLAIN_SHAPES:
            yield case(files, "encoded", bt, rows, cols, encode(source_weights(rows, cols), bt.name))
        rows, cols = (3, 512) if bt.quantized else (3, 40)
        if bt.quantized:
            panels = pack_panels(random_fields(rows, cols, bt), bt)
        else:
            panels = pack_plain(random_plain(rows, cols, bt.name))
        yield case(files, "random", bt, rows, cols, panels)


def write_json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    types = [{**asdict(bt), "values": list(bt.values), "group_bytes": bt.group_bytes} for bt in BLOCK_TYPES.values()]
    sizes = {"panel_rows": PANEL_ROWS, "group_columns": GROUP, "super_block_columns": SUPER_BLOCK}
    write_json(FORMATS / "types.json", {**sizes, "types": types})
    files = Files(FORMATS / "vectors")
    for stale in files.folder.iterdir():
        stale.unlink()
    write_json(files.folder / "manifest.json", {"cases": list(cases(files))})


if __name__ == "__main__":
    main()
