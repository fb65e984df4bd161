"""Layouts that are refused by name, and those of Quark, whose files are made here."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeq.checkpoints import open_checkpoint
from edgeq.errors import EdgeqError, UnsupportedError

ROWS, COLS = 32, 64
RNG = np.random.default_rng(1)
CODES = RNG.integers(-128, 128, (ROWS, COLS)).astype(np.int8)
FLOATS = (RNG.standard_normal((ROWS, COLS)) * 100).astype(ml_dtypes.float8_e4m3fn)
SCALE = RNG.random((ROWS, 1)).astype(np.float32)
PAIRS = RNG.integers(0, 256, (ROWS, COLS // 2), np.uint8)
EXPONENTS = RNG.integers(110, 125, (ROWS, COLS // 32), np.uint8)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def write(
    folder: Path, quantization: dict[str, Any], tensors: dict[str, np.ndarray], about: dict[str, Any] | None = None
) -> Path:
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    described = {name: json.dumps(value) for name, value in (about or {}).items()}
    named = {f"m.{name}": value for name, value in tensors.items()}
    save_file(named, folder / "model.safetensors", described or None)
    return folder


def quark(dtype: str) -> dict[str, Any]:
    return {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": dtype}}}


def test_quark(tmp_path: Path) -> None:
    four = np.stack([E2M1[PAIRS & 15], E2M1[PAIRS >> 4]], axis=-1).reshape(ROWS, COLS)
    powers = np.repeat(2.0 ** (EXPONENTS.astype(np.float32) - 127), 32, axis=1)
    cases = {
        "fp8_e4m3": ({"weight": FLOATS, "weight_scale": np.full((), 0.25, np.float32)}, FLOATS.astype(np.float32) / 4),
        "int8": ({"weight": CODES, "weight_scale": SCALE[:, 0]}, CODES * SCALE),
        "fp4": ({"weight": PAIRS, "weight_scale": EXPONENTS}, four * powers),
    }
    for dtype, (tensors, expected) in cases.items():
        with open_checkpoint(write(tmp_path, quark(dtype), tensors)) as opened:
            np.testing.assert_array_equal(opened.read("m.weight"), expected)


AO = {"_type": "Int8Tensor", "_data": {}}
PARTS = {"_weight_qdata": CODES, "_weight_scale": SCALE}
TORCHAO = {"quant_method": "torchao"}
WORDS = np.zeros((ROWS, COLS // 8), np.int32)
QUARK_GROUPS = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "uint4", "qscheme": "per_group"}}}
HQQ = {"W_q": PAIRS, "scale": SCALE, "zero": SCALE, "nbits": np.int32([4]), "axis": np.int32([1])}


@pytest.mark.parametrize(
    ("quantization", "tensors", "about", "message"),
    [
        (TORCHAO, PARTS, {"m.weight": AO | {"_type": "Int4TilePackedTo4dTensor"}}, "m.weight is a Int4TilePackedTo4d"),
        (TORCHAO, PARTS, {"m.weight": AO | {"_data": {"is_swizzled_scales": True}}}, "scales in another order"),
        (TORCHAO, PARTS | {"_weight_act_pre_scale": SCALE}, {"m.weight": AO}, "scales for what it is multiplied by"),
        (TORCHAO, PARTS, {"m.other": AO}, "does not say what 'm.weight' is"),
        (TORCHAO, {"_weight_qdata": CODES}, {"m.weight": AO}, "has no tensor 'm._weight_scale'"),
        (quark("int4"), {"weight": WORDS, "weight_scale": SCALE}, None, "m.weight is I32, elements int4: Quark's fp8"),
        (
            QUARK_GROUPS,
            {"weight": WORDS.T, "weight_scale": SCALE},
            None,
            "m.weight is I32, elements uint4: Quark's fp8",
        ),
        (quark("fp6_e3m2"), {"weight": PAIRS, "weight_scale": EXPONENTS}, None, "elements fp6_e3m2"),
        (
            {"quant_method": "modelopt", "quant_algo": "INT4_AWQ"},
            {"weight": PAIRS, "weight_scale": SCALE},
            None,
            "m.weight is U8, of INT4_AWQ: ModelOpt's NVFP4, FP8 and MXFP8",
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"},
            {"weight": PAIRS, "weight_scale": SCALE, "pre_quant_scale": SCALE},
            None,
            "whose inputs are scaled column by column",
        ),
        ({"quant_method": "hqq"}, {"W_q": PAIRS, "scale_q": CODES}, None, "m has no 'scale': weights without it"),
        ({"quant_method": "hqq"}, HQQ | {"nbits": np.int32([5]), "shape": np.int64([32, 64])}, None, "HQQ of 5 bits"),
        ({"quant_method": "hqq"}, HQQ | {"shape": np.int64([32, 64, 1])}, None, "its shape is"),
        ({"quant_method": "hqq"}, HQQ | {"shape": np.int64([32, 32])}, None, "no codes of"),
    ],
)
def test_other_layouts_are_refused_by_name(
    quantization: dict[str, Any],
    tensors: dict[str, np.ndarray],
    about: dict[str, Any] | None,
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(EdgeqError) as caught:
        open_checkpoint(write(tmp_path, quantization, tensors, about))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_modelopt_says_its_method_beside(tmp_path: Path) -> None:
    """As its first versions did, in a file of their own."""
    write(tmp_path, {}, {"weight": FLOATS, "weight_scale": np.full((), 0.5, np.float32)})
    about = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(about))
    with open_checkpoint(tmp_path) as opened:
        np.testing.assert_array_equal(opened.read("m.weight"), FLOATS.astype(np.float32) / 2)
    write(tmp_path, {}, {"weight": CODES, "weight_scale": SCALE})
    with pytest.raises(UnsupportedError, match=r"m\.weight is I8, of FP8"):
        open_checkpoint(tmp_path)
