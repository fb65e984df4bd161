"""The golden vectors of formats/vectors: read by the code, and by a reader written from the prose alone."""

import hashlib
import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.reference import decode, from_gguf, to_gguf
from edgeq.blocks.table import BLOCK_TYPES

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = REPOSITORY / "formats" / "vectors"
CASES = json.loads((VECTORS / "manifest.json").read_text())["cases"]
SIZES = {
    "Q8_0": (256, 512, 128),
    "Q4_0": (256, 256, 8),
    "Q4_1": (512, 256, 0),
    "Q5_0": (256, 320, 16),
    "Q5_1": (512, 320, 0),
    "Q4_K": (256, 256, 0),
    "Q5_K": (256, 320, 0),
    "Q6_K": (288, 384, 32),
}


def read(entry: dict) -> np.ndarray:
    data = (VECTORS / entry["file"]).read_bytes()
    assert len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_decodes_bit_for_bit(case):
    panels, rows, cols = read(case["panels"]), case["rows"], case["cols"]
    decoded = decode(panels, rows, cols, case["type"])
    assert decoded.tobytes() == read(case["decoded"]).tobytes()
    if "gguf" in case:
        blocks = read(case["gguf"])
        assert np.array_equal(to_gguf(panels, rows, cols, case["type"]), blocks)
        assert np.array_equal(from_gguf(blocks, rows, cols, case["type"]), panels)
    if "source" in case:
        source = read(case["source"]).view(np.float32).reshape(rows, cols)
        largest = np.abs(source).max(axis=1, keepdims=True)
        assert np.all(np.abs(decoded - source) <= 0.15 * largest)


def test_every_type_has_ragged_and_random_cases():
    for name, bt in BLOCK_TYPES.items():
        mine = [case for case in CASES if case["type"] == name]
        assert {case["kind"] for case in mine} == {"encoded", "random"}
        assert not bt.quantized or {case["cols"] for case in mine} >= {32, 96, 256, 288, 576}


def weight_by_the_prose(data: bytes, name: str, cols: int, n: int, k: int) -> np.float32:
    """One weight as formats/blocks.md describes it, in scalars and with nothing of the package."""
    header, group_bytes, zero = SIZES[name]
    r, g, j, p = n % 16, k % 256 // 32, k % 32 // 4, n % 16 * 4 + k % 4
    panel = n // 16 * (-(-cols // 256) * header + cols // 32 * group_bytes)
    block = panel + k // 256 * (header + 8 * group_bytes)
    group = block + header + g * group_bytes
    if name == "Q8_0":
        q = data[group + 64 * j + p]
    else:
        q = data[group + 64 * (j // 2) + p] >> 4 * (j % 2) & 15
    if name.startswith("Q5_"):
        q += 16 * (data[group + 256 + p] >> j & 1)
    if name == "Q6_K":
        q += 16 * (data[group + 256 + 64 * (j // 4) + p] >> 2 * (j % 4) & 3)

    def half(offset: int) -> np.float32:
        return np.float32(struct.unpack_from("<e", data, offset)[0])

    def six_bits(at: int) -> np.float32:
        low = data[at + 16 * (g % 4) + r] >> 4 * (g // 4) & 15
        return np.float32(low + 16 * (data[at + 64 + 16 * (g // 4) + r] >> 2 * (g % 4) & 3))

    if name.endswith(("_0", "_1")):
        weight = half(block + 32 * g + 2 * r) * np.float32(q - zero)
        return weight + half(block + 256 + 32 * g + 2 * r) if name.endswith("_1") else weight
    if name == "Q6_K":
        factor = struct.unpack_from("<b", data, block + 32 + 16 * (k % 256 // 16) + r)[0]
        return half(block + 2 * r) * np.float32(factor) * np.float32(q - zero)
    scale, minimum = half(block + 2 * r) * six_bits(block + 64), half(block + 32 + 2 * r) * six_bits(block + 160)
    return scale * np.float32(q) - minimum


@pytest.mark.parametrize("name", SIZES)
def test_the_prose_is_enough_to_read_a_panel(name):
    for case in (case for case in CASES if case["type"] == name):
        rows, cols = case["rows"], case["cols"]
        data = read(case["panels"]).tobytes()
        expected = read(case["decoded"]).view(np.float32).reshape(rows, cols)
        for n in range(rows):
            for k in range(n % 7, cols, 7):
                assert weight_by_the_prose(data, name, cols, n, k) == expected[n, k]


def test_the_vectors_are_what_the_tool_writes(tmp_path, monkeypatch):
    """Encoding gives the same bytes on every machine and with every NumPy."""
    spec = importlib.util.spec_from_file_location("make_vectors", REPOSITORY / "tools" / "make_vectors.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "FORMATS", tmp_path)
    tool.main()
    written = {path.name: path.read_bytes() for path in (tmp_path / "vectors").iterdir()}
    assert written == {path.name: path.read_bytes() for path in VECTORS.iterdir()}
    assert (tmp_path / "types.json").read_bytes() == (REPOSITORY / "formats" / "types.json").read_bytes()
