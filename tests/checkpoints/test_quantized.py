"""Quantized matrices as the libraries themselves stored them, against what these dequantize them to
(tools/make_quantized_golden.py)."""

import json
import shutil
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from edgeq.checkpoints import open_checkpoint
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.safetensors_index import index
from edgeq.checkpoints.stored import ELEMENTS
from edgeq.errors import EdgeqError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "quantized"
# Groups that are no multiples of 32 columns
NARROW = ("compressed-tensors-fp8-block", "compressed-tensors-nvfp4", "modelopt-nvfp4", "mlx-nvfp4", "hqq-4-16-rows")
READ_OF_HQQ = ("W_q", "scale", "zero", "nbits", "shape", "axis")  # of all that it stores
NAMES = {"mxfp4": "m.down_proj_blocks"}
CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def checkpoint(case: str, folder: Path) -> tuple[Path, str]:
    """A checkpoint's folder with the tensors of a case, and the element type of what is expected."""
    path = folder / "model.safetensors"
    shutil.copy(GOLDEN / f"{case}.safetensors", path)
    with safe_open(path, "np") as file:
        config = json.loads(file.metadata()["quantization_config"])
    said = {"quantization_config": config}
    if case.startswith("mlx"):  # which says it twice, and names no method
        said["quantization"] = config
    (folder / "config.json").write_text(json.dumps(said))
    return folder, index(str(path))["expected"].dtype


def test_there_are_cases_of_every_method() -> None:
    methods = {case.split("-")[0] for case in CASES}
    assert methods == {"awq", "bitnet", "bitsandbytes", "compressed", "fp8", "gptq", "hqq", "mlx", "mxfp4"} | {
        *("modelopt", "quark", "torchao")
    }


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_the_library(case: str, tmp_path: Path) -> None:
    """The product of code and scale is exact in f32, so it is the library's where that computes in f32, and rounds to
    the library's where that computes in f16 or bf16."""
    folder, dtype = checkpoint(case, tmp_path)
    with open_checkpoint(folder) as opened:
        (name,) = opened.packed
        assert set(opened.tensors) == {name, "expected"} and name == NAMES.get(case, "m.weight")
        found, expected = opened.read(name), opened.read("expected")
        rows, middle = len(found), opened.read_rows(name, 5, 23)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_array_equal(middle, found[5:23])
    assert rows > 23
    if case == "bitsandbytes-int8":  # code * (SCB / 127) here, (code * SCB) * (1 / 127) there
        np.testing.assert_allclose(found, expected, rtol=2**-22)
    elif case.startswith("hqq"):  # (code - zero) * scale there
        np.testing.assert_allclose(found, expected, rtol=0, atol=2**-22 * np.abs(found).max())
    elif case.startswith("mlx"):  # code * scale + bias there in one rounding, here in two
        np.testing.assert_allclose(found, expected, rtol=0, atol=2**-24 * np.abs(found).max())
    else:
        rounded = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}[dtype]
        np.testing.assert_array_equal(found.astype(rounded).astype(np.float32), expected)


@pytest.mark.parametrize("case", CASES)
def test_surveys_bound_what_is_there(case: str, tmp_path: Path) -> None:
    folder, _ = checkpoint(case, tmp_path)
    with open_checkpoint(folder) as opened:
        (matrix,) = opened.packed.values()
        survey, rows = matrix.survey(), matrix.rows(0, matrix.shape[0])
    if rows.codebook is not None:
        np.testing.assert_array_equal(survey.values, rows.codebook)
    else:
        assert np.isin(rows.codes, survey.values).all() or (len(survey.values) == 0 and rows.codes.dtype == np.float32)
    assert survey.even(32) == ("act-order" not in case and case not in NARROW)


def damages(value: np.ndarray) -> dict[str, np.ndarray | None]:
    """What can be wrong with a tensor."""
    flat = value.reshape(-1)
    return {
        "missing": None,
        "short": value[: len(value) // 2] if value.ndim else value,
        "empty": flat[:0],
        "flat": flat[:-1],
        "deep": value.reshape(1, 1, *value.shape),
        "narrow": value[..., : value.shape[-1] // 2] if value.ndim else value,
        "floats": np.full(value.shape, np.nan, np.float32),
        "bytes": np.full(value.shape, -1, np.int8),
    }


@pytest.mark.parametrize("case", CASES)
def test_no_damage_goes_further_than_one_line(case: str, tmp_path: Path) -> None:
    """Whatever is wrong with the tensors of a matrix, an error of edgeq's says so, or it reads all the same."""
    folder, _ = checkpoint(case, tmp_path)
    with safe_open(folder / "model.safetensors", "np") as file:
        names, about = sorted(set(file.keys()) - {"expected"}), file.metadata()
    raw = Files(index(str(folder / "model.safetensors")))
    whole = {name: raw.whole(name) for name in names}
    raised = 0
    for name in names:
        for damaged in damages(whole[name]).values():
            tensors = {other: value for other, value in whole.items() if other != name}
            write(folder, tensors | ({} if damaged is None else {name: damaged}), about)
            try:
                with open_checkpoint(folder) as opened:
                    for matrix in opened.packed.values():
                        matrix.survey()
                        matrix.weights(0, matrix.shape[0])
            except EdgeqError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
                raised += 1
    read = [name for name in names if not case.startswith("hqq") or name.removeprefix("m.") in READ_OF_HQQ]
    assert raised >= 3 * len(read)


def write(folder: Path, tensors: dict[str, np.ndarray], about: dict[str, str]) -> None:
    """model.safetensors of arrays as `Files` reads them: BF16 as 16-bit words, for which they stand here."""
    names = {np.dtype(np.uint16): "BF16"} | {dtype: name for name, dtype in ELEMENTS.items() if name != "BF16"}
    header, offset = {"__metadata__": about}, 0
    for name, value in tensors.items():
        shape = list(value.shape)
        header[name] = {"dtype": names[value.dtype], "shape": shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
