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
    "Q2_K": (320, 128, 0),
    "Q3_K": (224, 192, 4),
    "IQ4_NL": (256, 256, 0),
    "IQ4_XS": (128, 256, 0),
    "MXFP4": (128, 256, 0),
    "TQ2_0": (32, 128, 1),
    "Q2_0": (128, 128, 1),
    "Q1_0": (64, 64, 0),
    "NF4": (256, 256, 0),
    "IQ12_W": (288, 256, 0),
    "IQ3_W": (288, 256, 0),
    "IQ3S_W": (288, 256, 0),
    "NVFP4_W": (288, 256, 0),
    "I8_R": (64, 512, 128),
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
        few = {"Q2_K": 0.5, "Q3_K": 0.3, "MXFP4": 0.35, "TQ2_0": 0.65, "Q2_0": 0.75, "Q1_0": 0.8}  # levels
        assert np.all(np.abs(decoded - source) <= few.get(case["type"], 0.15) * largest)


def test_every_type_has_ragged_and_random_cases():
    for name, bt in BLOCK_TYPES.items():
        mine = [case for case in CASES if case["type"] == name]
        assert {case["kind"] for case in mine} == {"encoded", "random"}
        assert not bt.quantized or {case["cols"] for case in mine} >= {32, 96, 256, 288, 576}


IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
OWN = {
    "IQ12_W": (-43, -25, -16, -9, -8, -7, -1, 0, 1, 7, 8, 9, 16, 25, 43, 0),
    "IQ3_W": (-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62),
    "NVFP4_W": (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12),
    "IQ3S_W": (-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15),
}
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635)
NF4 += (-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725)
NF4 += (0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
UNITS = {"IQ12_W": 8, "IQ3_W": 4, "IQ3S_W": 1, "NVFP4_W": 512}
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)


def code_by_the_prose(data: bytes, name: str, group: int, j: int, p: int) -> int:
    """The code at position `p` of code line `j`."""

    def at(h: int) -> int:
        return data[group + 64 * h + p]

    if name in ("Q8_0", "I8_R"):
        return at(j)
    if name == "Q1_0":
        return at(0) >> j & 1
    if name in ("Q2_K", "Q2_0", "TQ2_0"):
        return at(j // 4) >> 2 * (j % 4) & 3
    if name == "Q3_K":
        return at(j // 2) >> 3 * (j % 2) & 7 if j < 6 else 2 * (at(j - 6) >> 6) + (at(2) >> j & 1)
    if name.startswith("Q5_"):
        if j in (2, 5):
            return 4 * (at(j - j // 2 - 1) >> 5) + (at(j - j // 2) >> 6)
        if j == 7:
            return 4 * (at(4) >> 5) + 2 * (at(1) >> 5 & 1) + (at(3) >> 5 & 1)
        return at(j - j // 3) & 31
    if name == "Q6_K":
        h = 3 * (j // 4)
        return at(h + j % 4) & 63 if j % 4 < 3 else 16 * (at(h) >> 6) + 4 * (at(h + 1) >> 6) + (at(h + 2) >> 6)
    return at(j // 2) >> 4 * (j % 2) & 15


def weight_by_the_prose(data: bytes, name: str, cols: int, n: int, k: int) -> np.float32:
    """One weight as formats/blocks.md describes it, in scalars and with nothing of the package."""
    header, group_bytes, zero = SIZES[name]
    r, g, t, j, p = n % 16, k % 256 // 32, k % 256 // 16, k % 32 // 4, n % 16 * 4 + k % 4
    panel = n // 16 * (-(-cols // 256) * header + cols // 32 * group_bytes)
    block = panel + k // 256 * (header + 8 * group_bytes)
    if name == "I8_R":
        panel = n // 16 * (header + cols // 32 * group_bytes)
        q = code_by_the_prose(data, name, panel + header + k // 32 * group_bytes, j, p)
        return np.float32(struct.unpack_from("<f", data, panel + 4 * r)[0]) * np.float32(q - zero)
    q = code_by_the_prose(data, name, block + header + g * group_bytes, j, p)

    def half(offset: int) -> np.float32:
        return np.float32(struct.unpack_from("<e", data, offset)[0])

    def six_bits(at: int, i: int, count: int) -> int:
        """Number i of `count` numbers of 6 bits."""
        if i < 3 * count // 4:
            return data[at + 16 * i + r] & 63
        tops = [data[at + 16 * (i - part * count // 4) + r] >> 6 for part in (3, 2, 1)]
        return 16 * tops[0] + 4 * tops[1] + tops[2]

    if name == "NF4":
        return np.float32(struct.unpack_from("<f", data, block + 64 * (g // 2) + 4 * r)[0]) * np.float32(NF4[q])
    if name == "MXFP4":
        return np.float32(np.ldexp(FP4[q], data[block + 16 * g + r] - 127))
    if name == "TQ2_0":
        return half(block + 2 * r) * np.float32(q - zero)
    if name == "Q2_0":
        return half(block + 32 * (g // 2) + 2 * r) * np.float32(q - zero)
    if name == "Q1_0":
        return half(block + 32 * (g // 4) + 2 * r) * np.float32(2 * q - 1)
    if name.endswith(("_0", "_1", "_NL")):
        weight = half(block + 32 * g + 2 * r) * np.float32(IQ4[q] if name == "IQ4_NL" else q - zero)
        return weight + half(block + 256 + 32 * g + 2 * r) if name.endswith("_1") else weight
    if name == "IQ4_XS":
        return half(block + 2 * r) * np.float32(six_bits(block + 32, g, 8) - 32) * np.float32(IQ4[q])
    if name == "Q3_K":
        return half(block + 2 * r) * np.float32(six_bits(block + 32, t, 16) - 32) * np.float32(q - zero)
    if name in OWN:
        factor = struct.unpack_from("<b", data, block + 32 + 16 * t + r)[0]
        return half(block + 2 * r) * np.float32(factor) * np.float32(OWN[name][q] / UNITS[name])
    if name == "Q6_K":
        factor = struct.unpack_from("<b", data, block + 32 + 16 * t + r)[0]
        return half(block + 2 * r) * np.float32(factor) * np.float32(q - zero)
    d, dmin, pair = half(block + 2 * r), half(block + 32 + 2 * r), data[block + 64 + 16 * t + r]
    if name == "Q2_K":
        s, m = pair & 15, pair >> 4
    else:
        s, m = six_bits(block + 64, g, 8), six_bits(block + 160, g, 8)
    return d * np.float32(s) * np.float32(q) - dmin * np.float32(m)


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
