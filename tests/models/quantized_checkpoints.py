"""Turns a small random checkpoint into one that a quantization library could have written.

Packing follows the libraries' documentation, code by code into one long integer; it shares nothing with edgeq's
importers. Each method returns the tensors to store in a matrix's place, and the weights that they stand for in f32.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import random_checkpoints
from safetensors.numpy import save_file

Array = np.ndarray[Any, Any]
Method = Callable[[Array], tuple[dict[str, Array], Array]]
# The codebook, of bitsandbytes' documentation
NF4 = """
    -1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334
    -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
    0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0
"""


def words(codes: Iterable[int], bits: int) -> Array:
    """32-bit words of codes that follow one another, the first one in the lowest bits."""
    whole, count = 0, 0
    for code in codes:
        whole |= int(code) << bits * count
        count += 1
    return np.frombuffer(whole.to_bytes(-(-bits * count // 32) * 4, "little"), "<i4")


def quantized(w: Array, group: Array, bits: int, symmetric: bool) -> tuple[Array, Array, Array]:
    """(codes [rows, columns], scales f16 and zero points [rows, groups]): weights of one group share a scale."""
    count, top = int(group.max()) + 1, (1 << bits) - 1
    scales, zeros = np.empty((len(w), count), np.float16), np.empty((len(w), count), np.int64)
    for g in range(count):
        part = w[:, group == g]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            high = np.maximum(high, -low)
            low = -high
        scales[:, g] = (high - low) / top
        zeros[:, g] = (1 << bits - 1) if symmetric else np.clip(np.rint(-low / scales[:, g]), 1, top)
    codes = np.clip(np.rint(w / scales[:, group]) + zeros[:, group], 0, top).astype(np.int64)
    return codes, scales, zeros


def dequantized(codes: Array, scales: Array, zeros: Array, group: Array) -> Array:
    return scales.astype(np.float32)[:, group] * (codes - zeros[:, group]).astype(np.float32)


def gptq(
    bits: int = 4, size: int = 32, symmetric: bool = True, act_order: bool = False, version: int = 1, index: bool = True
) -> Method:
    """AutoGPTQ's layout; zero points less one in version 1."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        columns = w.shape[1]
        group = np.arange(columns) // (size if size > 0 else columns)
        if act_order:
            group = np.random.RandomState(columns).permutation(group)
        codes, scales, zeros = quantized(w, group, bits, symmetric)
        stored = {
            "qweight": np.stack([words(row, bits) for row in codes], axis=1),
            "qzeros": np.stack([words(column - (version == 1), bits) for column in zeros.T]),
            "scales": np.ascontiguousarray(scales.T),
        }
        if index:
            stored["g_idx"] = group.astype(np.int32)
        return stored, dequantized(codes, scales, zeros, group)

    return method


def awq(size: int = 32) -> Method:
    """AutoAWQ's gemm layout: 8 rows a word, those with even numbers first."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        group = np.arange(w.shape[1]) // size
        codes, scales, zeros = quantized(w, group, 4, False)

        def pack(matrix: Array) -> Array:
            octets = matrix.T.reshape(matrix.shape[1], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
            return np.stack([words(row.reshape(-1), 4) for row in octets])

        stored = {"qweight": pack(codes), "qzeros": pack(zeros), "scales": np.ascontiguousarray(scales.T)}
        return stored, dequantized(codes, scales, zeros, group)

    return method


def pack_quantized(bits: int = 4, size: int = 32, symmetric: bool = True, act_order: bool = False) -> Method:
    """compressed-tensors' pack-quantized."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        group = np.arange(w.shape[1]) // (size if size > 0 else w.shape[1])
        if act_order:
            group = np.random.RandomState(len(group)).permutation(group)
        codes, scales, zeros = quantized(w, group, bits, symmetric)
        stored = {
            "weight_packed": np.stack([words(row, bits) for row in codes]),
            "weight_scale": scales,
            "weight_shape": np.array(w.shape, np.int64),
        }
        if act_order:
            stored["weight_g_idx"] = group.astype(np.int32)
        if not symmetric:
            stored["weight_zero_point"] = np.stack([words(column, bits) for column in zeros.T], axis=1)
        return stored, dequantized(codes, scales, zeros, group)

    return method


def int8(scale_dtype: type = np.float32, name: str = "weight_scale", factor: float = 1.0) -> Method:
    """A scale per row: compressed-tensors' int-quantized; LLM.int8's `SCB` is 127 times the scale."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        stored = (np.abs(w).max(axis=1) / 127 * factor).astype(scale_dtype)
        scale = (stored.astype(np.float32) * np.float32(1 / factor))[:, None]
        codes = np.clip(np.rint(w / scale), -127, 127).astype(np.int8)
        return {"weight": codes, name: stored if factor != 1 else stored[:, None]}, codes * scale

    return method


def nf4(size: int = 64, storage: str = "u1") -> Method:
    """bitsandbytes' NF4 without double quantization: blocks run on from row to row; bytes stored as another type."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        book = np.array(NF4.split(), np.float32)
        blocks = w.reshape(-1, size)
        absmax = np.abs(blocks).max(axis=1)
        codes = np.abs(blocks[:, :, None] / absmax[:, None, None] - book).argmin(axis=2)
        state = {"quant_type": "nf4", "blocksize": size, "dtype": "float32", "shape": w.shape}
        pairs = codes.reshape(-1, 2)
        stored = {
            "weight": (pairs[:, 0] << 4 | pairs[:, 1]).astype(np.uint8).view(storage)[:, None],
            "weight.absmax": absmax,
            "weight.quant_map": book,
            "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
        }
        return stored, (book[codes] * absmax[:, None]).reshape(w.shape)

    return method


def fp8(block: tuple[int, int] = (32, 32)) -> Method:
    """DeepSeek's blocks."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        rows, columns = w.shape
        scale = np.ones((-(-rows // block[0]), -(-columns // block[1])), np.float32)
        for i, j in np.ndindex(scale.shape):
            part = w[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            scale[i, j] = np.abs(part).max() / 448
        wide = np.repeat(np.repeat(scale, block[0], axis=0), block[1], axis=1)[:rows, :columns]
        codes = (w / wide).astype(ml_dtypes.float8_e4m3fn)
        return {"weight": codes, "weight_scale_inv": scale}, codes.astype(np.float32) * wide

    return method


def gemma(bits: int, scale_dtype: type = np.float32) -> Method:
    """Gemma's, a scale per row: bytes of several codes, or 8-bit integers."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        half = 1 << bits - 1
        scale = (np.abs(w).max(axis=1, keepdims=True) / (half - 1)).astype(scale_dtype).astype(np.float32)
        codes = np.clip(np.rint(w / scale), -half, half - 1).astype(np.int64)
        stored = codes.astype(np.int8)
        if bits < 8:
            several = (codes + half).reshape(len(w), -1, 8 // bits)
            stored = sum(several[:, :, i] << i * bits for i in range(8 // bits)).astype(np.uint8)
        beside = {"input_activation_scale": np.float32(0.1), "output_activation_scale": np.float32(0.0)}
        return {"weight": stored, "weight_scale": scale, **beside}, (codes * scale).astype(np.float32)

    return method


def mxfp4(w: Array) -> tuple[dict[str, Array], Array]:
    """gpt-oss' experts, [experts, in, out] unquantized."""
    book = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    blocks = w.swapaxes(1, 2).reshape(w.shape[0], w.shape[2], -1, 32)
    scales = np.ceil(np.log2(np.abs(blocks).max(axis=-1) / 6)) + 127
    power = (2.0 ** (scales - 127)).astype(np.float32)[..., None]
    codes = np.abs((blocks / power)[..., None] - book).argmin(axis=-1)
    stored = {
        "_blocks": (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8),
        "_scales": scales.astype(np.uint8),
    }
    return stored, (book[codes] * power).reshape(w.shape[0], w.shape[2], w.shape[1]).swapaxes(1, 2)


def mlx(bits: int = 4, size: int = 32, dtype: Any = np.float16) -> Method:
    """mlx-lm's affine codes; a scale is negative where the largest weight of a group is."""

    def method(w: Array) -> tuple[dict[str, Array], Array]:
        groups = w.reshape(len(w), -1, size)
        low, high = groups.min(axis=2), groups.max(axis=2)
        below = np.abs(low) > np.abs(high)
        scales = (np.where(below, low - high, high - low) / ((1 << bits) - 1)).astype(dtype)
        biases = np.where(below, high, low).astype(dtype)
        wide, start = (part.astype(np.float32)[:, :, None] for part in (scales, biases))
        codes = np.clip(np.rint((groups - start) / wide), 0, (1 << bits) - 1).astype(np.int64)
        rows = [words(row, bits) for row in codes.reshape(len(w), -1)]
        stored = {"weight": np.stack(rows).view("<u4"), "scales": scales, "biases": biases}
        return stored, (wide * codes.astype(np.float32) + start).reshape(w.shape)

    return method


def mlx_mxfp4(w: Array) -> tuple[dict[str, Array], Array]:
    """mlx-lm's MXFP4, of a matrix."""
    parts, dequantized = mxfp4(w.T[None])
    stored = {"weight": np.ascontiguousarray(parts["_blocks"][0]).reshape(len(w), -1).view("<u4")}
    return stored | {"scales": parts["_scales"][0]}, dequantized[0].T


def nvfp4(w: Array, whole: bool = True) -> tuple[dict[str, Array], Array]:
    """ModelOpt's NVFP4; unless `whole` mlx-lm's, without a scale of the whole matrix."""
    book = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    groups = w.reshape(len(w), -1, 16)
    largest = np.abs(groups).max(axis=-1) / 6
    second = np.float32(largest.max() / 448 if whole else 1)
    scales = (largest / second).astype(ml_dtypes.float8_e4m3fn)
    wide = (scales.astype(np.float32) * second)[:, :, None]
    codes = np.abs(groups[:, :, :, None] / np.where(wide, wide, 1)[..., None] - book).argmin(axis=-1)
    pairs = codes.reshape(len(w), -1, 2)
    packed = (pairs[:, :, 0] | pairs[:, :, 1] << 4).astype(np.uint8)
    if whole:
        beside = {"weight_scale_2": np.float32([second]), "input_scale": np.float32([0.1])}
        stored = {"weight": packed, "weight_scale": scales, **beside}
    else:
        stored = {"weight": packed.view("<u4"), "scales": scales.view(np.uint8)}
    return stored, (book[codes] * wide).reshape(w.shape)


def make(case: str, method: Method) -> tuple[dict[str, Any], dict[str, Array], dict[str, Array], list[int]]:
    """(config, tensors as stored, weights that they stand for, prompt) of a random checkpoint whose projections are
    quantized; the rest stays f32."""
    config, weights, prompt = random_checkpoints.make(case)
    stored: dict[str, Array] = {}
    for name, w in list(weights.items()):
        if "_proj.weight" in name and method is not mxfp4:
            turned = config["model_type"] == "gpt2"  # whose matrices are [in, out], but not once they are quantized
            parts, dequantized = method(np.ascontiguousarray(w.T) if turned else w)
            weights[name] = dequantized.T if turned else dequantized
            stored |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
        elif w.ndim == 3 and method is mxfp4:
            parts, weights[name] = method(w)
            stored |= {f"{name.removesuffix('.weight')}{part}": value for part, value in parts.items()}
        else:
            stored[name] = w
    return config, stored, weights, prompt


def write(case: str, method: Method, quantization: dict[str, Any], folder: Path) -> tuple[Path, dict[str, Array]]:
    """Write such a checkpoint; returns its folder, and the weights that it stands for."""
    config, stored, weights, _ = make(case, method)
    folder.mkdir(parents=True, exist_ok=True)
    said = {"quantization_config": quantization}
    if "mode" in quantization:  # as mlx-lm has it
        said["quantization"] = quantization
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    save_file({name: np.ascontiguousarray(value) for name, value in stored.items()}, folder / "model.safetensors")
    return folder, weights
