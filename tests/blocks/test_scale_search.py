"""The encoder's error: never above llama.cpp's for the same type, and no block makes it fail."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.search_symmetric import code_range
from edgeq.blocks.table import BLOCK_TYPES, block_type

# RMS error over RMS of the source of llama.cpp's own encoder (ggml_quantize_chunk of llama-cpp-python 0.3.36, no
# importance matrix), as bench/encode_error.py prints it for the same rows.
LLAMA = {
    "gaussian": {"Q8_0": 0.00534, "Q4_0": 0.08588, "Q4_K": 0.07131, "Q5_K": 0.03611, "Q6_K": 0.01773}
    | {"Q4_1": 0.07817, "Q5_0": 0.04254, "Q5_1": 0.03781}
    | {"Q2_K": 0.29567, "Q3_K": 0.15056, "IQ4_NL": 0.0761, "IQ4_XS": 0.07671, "MXFP4": 0.11481, "TQ2_0": 0.80887},
    "babyllama105": {"Q8_0": 0.00440, "Q4_0": 0.07111, "Q4_K": 0.06085, "Q5_K": 0.03054, "Q6_K": 0.01464}
    | {"Q4_1": 0.06665, "Q5_0": 0.03528, "Q5_1": 0.03212}
    | {"Q2_K": 0.2508, "Q3_K": 0.12833, "IQ4_NL": 0.06866, "IQ4_XS": 0.06918, "MXFP4": 0.10967, "TQ2_0": 0.72788},
    "bitllama-3M": {"Q8_0": 0.00302, "Q4_0": 0.09404, "Q4_K": 0.03586, "Q5_K": 0.02391, "Q6_K": 0.01027}
    | {"Q4_1": 0.06231, "Q5_0": 0.04639, "Q5_1": 0.03017}
    | {"Q2_K": 0.25408, "Q3_K": 0.13689, "IQ4_NL": 0.0647, "IQ4_XS": 0.06649, "MXFP4": 0.09353, "TQ2_0": 0.27971},
    "stories260K": {"Q8_0": 0.00537, "Q4_0": 0.08542, "Q4_K": 0.07364, "Q5_K": 0.03655, "Q6_K": 0.01746}
    | {"Q4_1": 0.08180, "Q5_0": 0.04306, "Q5_1": 0.03803}
    | {"Q2_K": 0.31403, "Q3_K": 0.15074, "IQ4_NL": 0.07742, "IQ4_XS": 0.07824, "MXFP4": 0.11555, "TQ2_0": 0.76582},
}
# What the search gains over that; a change of the search that loses it shows here.
AT_MOST = {"Q8_0": 0.96, "Q4_0": 0.95, "Q4_K": 0.98, "Q5_K": 0.95, "Q6_K": 0.95}
AT_MOST |= {"Q4_1": 0.95, "Q5_0": 0.95, "Q5_1": 0.95}
AT_MOST |= {"Q2_K": 0.93, "Q3_K": 0.97, "IQ4_NL": 0.99, "IQ4_XS": 0.99, "MXFP4": 1.0, "TQ2_0": 0.85}
# Types that llama.cpp does not encode: what the search reaches, a little above
LLAMA["gaussian"] |= {
    "NF4": 0.0853,
    "IQ12_W": 0.1150,
    "IQ3_W": 0.0724,
    "IQ3S_W": 0.0740,
    "NVFP4_W": 0.0790,
    "I8_R": 0.0079,
}
LLAMA["gaussian"] |= {"Q2_0": 0.3515, "Q1_0": 0.6028}  # whose encoders there take the largest weight, the mean
# The same of the error that importances weigh, both encoders given importances: rows and importances of
# `test_importances_lower_the_error_that_they_weigh`, by ggml_quantize_chunk with its matrix
LLAMA_WEIGHTED = {"Q8_0": 0.00534, "Q4_0": 0.07737, "Q4_1": 0.06357, "Q5_0": 0.0384, "Q5_1": 0.03084, "Q2_K": 0.23798}
LLAMA_WEIGHTED |= {"Q3_K": 0.13475, "Q4_K": 0.0646, "Q5_K": 0.03285, "Q6_K": 0.01624, "IQ4_NL": 0.06996}
LLAMA_WEIGHTED |= {"IQ4_XS": 0.07071, "MXFP4": 0.11483, "TQ2_0": 0.80133}
QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]


def relative_error(weights: np.ndarray, name: str) -> float:
    decoded = decode(encode(weights, name), *weights.shape, name)
    exact = weights.astype(np.float64)
    return float(np.sqrt(np.mean((decoded - exact) ** 2) / np.mean(exact**2)))


@pytest.mark.parametrize("name", QUANTIZED)
def test_error_on_gaussian_rows(name):
    weights = np.random.default_rng(1).standard_normal((256, 1024), dtype=np.float32)
    assert relative_error(weights, name) < AT_MOST.get(name, 1.0) * LLAMA["gaussian"][name]


@pytest.mark.parametrize("model", [model for model in LLAMA if model != "gaussian"])
def test_error_on_real_rows(model, shared_data: Path):
    path = shared_data / "models" / model / "model.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    matrices = [tensor for _, tensor in sorted(load_file(path).items()) if tensor.ndim == 2]
    rows = [m.astype(np.float32).reshape(-1)[: m.size // 256 * 256].reshape(-1, 256) for m in matrices]
    weights = np.concatenate(rows)[:1024]
    for name, theirs in LLAMA[model].items():
        assert relative_error(weights, name) < AT_MOST[name] * theirs


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_short_super_block_is_no_worse(name):
    weights = np.random.default_rng(2).standard_normal((64, 96), dtype=np.float32)
    assert relative_error(weights, name) < 1.02 * LLAMA["gaussian"][name]


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_is_exact_stays_exact(name):
    """Zeros, and weights that are a power of two times what codes stand for."""
    zeros = np.zeros((2, 288), np.float32)
    assert np.array_equal(decode(encode(zeros, name), 2, 288, name), zeros)
    bt = BLOCK_TYPES[name]
    low, high = code_range(bt) if bt.zero_point else (-1 << bt.bits - 1, 1 << bt.bits - 1)
    values = np.array(bt.values or range(max(low, -7), min(high, 8)), np.float32) / 64
    levels = np.random.default_rng(3).choice(values, (4, 288))
    levels[:, ::8], levels[:, 1::8] = values.min(), values.max()
    assert relative_error(levels, name) < 0.003


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("scale", [1e4, 1.0, 1e-2, 1e-4])
def test_error_does_not_depend_on_the_size_of_the_weights(name, scale):
    weights = (np.random.default_rng(4).standard_normal((16, 512)) * scale).astype(np.float32)
    # at 1e-4 the f16 scales are near the smallest that f16 has, and hold few digits
    assert relative_error(weights, name) < LLAMA["gaussian"][name] * (1.1 if scale == 1e-4 else 1.02)


@pytest.mark.parametrize("name", [name for name in QUANTIZED if not BLOCK_TYPES[name].per_row and name != "Q1_0"])
def test_an_outlier_costs_its_own_group_only(name):
    weights = np.random.default_rng(5).standard_normal((8, 256), dtype=np.float32)
    spoiled = weights.copy()
    spoiled[:, 3] = 40
    clean = decode(encode(weights, name), 8, 256, name) - weights
    hit = decode(encode(spoiled, name), 8, 256, name) - spoiled
    assert np.abs(hit[:, 3]).max() < (0.25 if name == "MXFP4" else 0.1) * 40
    far = slice(64, None)
    # the other groups share d: coarser where factors have few steps, but not the outlier's step
    assert np.sqrt(np.mean(hit[:, far] ** 2)) < 3 * np.sqrt(np.mean(clean[:, far] ** 2))


def gaussian_with_importances() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((64, 1024), dtype=np.float32)
    return weights, np.exp(rng.standard_normal(1024)).astype(np.float32)


def weighted_error(weights: np.ndarray, importance: np.ndarray, decoded: np.ndarray) -> float:
    exact = weights.astype(np.float64)
    return float(np.sqrt(((decoded - exact) ** 2 @ importance).sum() / (exact**2 @ importance).sum()))


@pytest.mark.parametrize("name", QUANTIZED)
def test_importances_lower_the_error_that_they_weigh(name):
    weights, importance = gaussian_with_importances()
    shape = weights.shape
    found = weighted_error(weights, importance, decode(encode(weights, name, importance), *shape, name))
    assert found < weighted_error(weights, importance, decode(encode(weights, name), *shape, name))
    assert found < LLAMA_WEIGHTED.get(name, 1.0)


@pytest.mark.parametrize("name", QUANTIZED)
def test_only_the_ratios_of_importances_matter(name):
    """A power of two changes no bit; groups without importance are encoded as without any."""
    rng = np.random.default_rng(7)
    weights = rng.standard_normal((8, 512), dtype=np.float32)
    importance = np.exp(rng.standard_normal(512)).astype(np.float32)
    once = encode(weights, name, importance)
    for power in (2.0**90, 2.0**-90):
        assert np.array_equal(encode(weights, name, importance * np.float32(power)), once)
    if block_type(name).per_row:  # its groups share a scale
        return
    importance[:256] = 0
    first = decode(encode(weights, name, importance), 8, 512, name)[:, :256]
    assert np.array_equal(first, decode(encode(weights[:, :256], name), 8, 256, name))
