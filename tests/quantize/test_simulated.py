"""Simulated formats: against definitions written out weight by weight, and against torch's where that is installed."""

from math import ceil, prod
from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.reference import decode
from edgeq.blocks.table import NF4_VALUES
from edgeq.container.reader import open_file
from edgeq.conversion.conversion import convert
from edgeq.quantize.simulated import FORMATS, Affine, dynamic, simulate

F16 = np.float16
WEIGHTS = np.random.default_rng(3).standard_t(4, (6, 160)).astype(np.float32)  # rows of a whole group and a short one
WEIGHTS[2, 128:] = 0
WEIGHTS[3] = np.abs(WEIGHTS[3])
PARTS = {  # (rows, columns) that share a scale
    "TENSOR": [(slice(0, 6), slice(0, 160))],
    "ROW": [(slice(i, i + 1), slice(0, 160)) for i in range(6)],
    "G128": [(slice(i, i + 1), columns) for i in range(6) for columns in (slice(0, 128), slice(128, 160))],
}


def settings(part: np.ndarray, bits: int, asymmetric: bool) -> tuple[float, int, int, int]:
    """(scale, zero point, least code, largest code)."""
    if not asymmetric:
        most = 2 ** (bits - 1) - 1
        return float(F16(np.abs(part).max() / np.float32(most))), 0, -most, most
    low, high = min(float(part.min()), 0.0), max(float(part.max()), 0.0)
    scale = float(F16(np.float32(high - low) / np.float32(2**bits - 1)))
    return scale, round(-low / scale) if scale else 0, 0, 2**bits - 1


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("INT")])
def test_integers_are_as_they_are_defined(name: str) -> None:
    form, where = FORMATS[name], name.split("_")[1]
    assert isinstance(form, Affine)
    expected = np.zeros_like(WEIGHTS)
    for place in PARTS[where]:
        scale, zero, least, most = settings(WEIGHTS[place], form.bits, name.endswith("ASYM"))
        for at, weight in np.ndenumerate(WEIGHTS[place]):
            code = min(max(round(float(weight) / scale) + zero, least), most) if scale else 0
            expected[place][at] = (code - zero) * scale if scale else 0.0
    found = form.rounded(WEIGHTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0 < np.square(found - WEIGHTS).mean() < (0.5 if form.bits == 4 else 0.005)


@pytest.mark.parametrize("name", ["INT8_ROW", "INT8_ROW_ASYM", "INT4_ROW", "INT4_TENSOR", "INT8_TENSOR_ASYM"])
def test_integers_are_torch_s(name: str) -> None:
    torch = pytest.importorskip("torch")
    form, x = FORMATS[name], torch.from_numpy(WEIGHTS)
    found = [settings(WEIGHTS[place], form.bits, name.endswith("ASYM")) for place in PARTS[name.split("_")[1]]]
    _, _, least, most = found[0]
    if "ROW" in name:
        scales, zeros = torch.tensor([one[0] for one in found]), torch.tensor([one[1] for one in found])
        expected = torch.fake_quantize_per_channel_affine(x, scales, zeros.int(), 0, least, most)
    else:
        expected = torch.fake_quantize_per_tensor_affine(x, *found[0])
    np.testing.assert_allclose(form.rounded(WEIGHTS), expected.numpy(), atol=1e-6)


def test_normal_floats_and_their_scales_are_as_they_are_defined() -> None:
    weights = np.random.default_rng(4).normal(size=(300, 80)).astype(np.float32)  # blocks go on in the next row
    flat = weights.reshape(-1)
    blocks = [flat[i : i + 64] for i in range(0, len(flat), 64)]
    scales = [float(np.abs(block).max()) for block in blocks]
    mean, eight = sum(scales) / len(scales), dynamic()
    expected = []
    for i, (block, scale) in enumerate(zip(blocks, scales, strict=True)):
        largest = max(abs(other - mean) for other in scales[i // 256 * 256 : i // 256 * 256 + 256])
        back = largest * min(eight, key=lambda value: abs(value - (scale - mean) / largest)) + mean
        expected += [back * min(NF4_VALUES, key=lambda value: abs(value - weight / scale)) for weight in block]
    found = FORMATS["NF4_DQ"].rounded(weights).reshape(-1)
    np.testing.assert_allclose(found, np.array(expected), atol=2e-6)
    assert np.all(FORMATS["NF4_DQ"].rounded(np.zeros((2, 64), np.float32)) == 0)


def test_the_eight_bits_of_scales() -> None:
    """256 values in order, as many of either sign; ten times nearer to zero there are half as many."""
    values = np.array(dynamic())
    assert len(set(values)) == 256 and values[127] == 0 and values[-1] == 1.0
    np.testing.assert_allclose(-values[:127][::-1], values[128:-1])
    decades = [int(((values > 10.0 ** (i - 7)) & (values < 10.0 ** (i - 6))).sum()) for i in range(7)]
    assert decades == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("INT8_TENSOR", 6 * 160 * 8 + 16),
        ("INT4_TENSOR_ASYM", 6 * 160 * 4 + 16 + 4),
        ("INT8_ROW", 6 * (160 * 8 + 16)),
        ("INT4_G128", 6 * (160 * 4 + 2 * 16)),
        ("INT8_G128_ASYM", 6 * (160 * 8 + 2 * (16 + 8))),
        ("NF4_DQ", 6 * 160 * 4 + 8 * 15 + 32 + 32),
    ],
)
def test_bytes(name: str, bits: int) -> None:
    assert FORMATS[name].nbytes(6, 160) == ceil(bits / 8)


def test_a_file_is_what_comes_back(tiny_model: Path, tmp_path: Path) -> None:
    convert(tiny_model, tmp_path / "float.eqf", "BF16")
    with open_file(tmp_path / "float.eqf") as file:
        nbytes, bits = simulate(file, tmp_path / "four.eqf", "INT4_G128")
        larger, more = simulate(file, tmp_path / "eight.eqf", "INT8_G128")
        with open_file(tmp_path / "four.eqf") as four:
            assert {info.type for info in four.tensors.values()} == {"F32"}
            for name in ("blk.0.ffn_down.weight", "token_embd.weight"):
                rows, columns = file.tensors[name].shape
                weights, found = (decode(one.data(name), rows, columns, one.tensors[name].type) for one in (file, four))
                form = "INT8_ROW" if name == "token_embd.weight" else "INT4_G128"  # it is the head, too
                assert np.array_equal(found, FORMATS[form].rounded(weights)), name
        weights = sum(prod(info.shape) for info in file.tensors.values())
        overhead = file.nbytes - sum(info.nbytes for info in file.tensors.values())  # header, tokenizer
    assert 4.2 < bits < 5.5 < 8.1 < more < 8.3
    for size, per_weight in ((nbytes, bits), (larger, more)):
        assert size == pytest.approx(weights * per_weight / 8 + overhead, rel=0.01)
