"""Quantized matrices as the libraries themselves stored them, against what these dequantize them to
(tools/make_quantized_golden.py)."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from edgeq.checkpoints import open_checkpoint
from edgeq.checkpoints.safetensors_index import index

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "quantized"
CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def checkpoint(case: str, folder: Path) -> tuple[Path, str]:
    """A checkpoint's folder with the tensors of a case, and the element type of what is expected."""
    path = folder / "model.safetensors"
    shutil.copy(GOLDEN / f"{case}.safetensors", path)
    with safe_open(path, "np") as file:
        config = json.loads(file.metadata()["quantization_config"])
    (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    return folder, index(str(path))["expected"].dtype


def test_there_are_cases_of_every_method() -> None:
    methods = {case.rsplit("-", 1)[0].split("-")[0] for case in CASES}
    assert methods == {"awq", "bitsandbytes", "compressed", "fp8", "gptq"}


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_the_library(case: str, tmp_path: Path) -> None:
    """The product of code and scale is exact in f32, so it is the library's where that computes in f32, and rounds to
    the library's where that computes in f16 or bf16."""
    folder, dtype = checkpoint(case, tmp_path)
    with open_checkpoint(folder) as opened:
        assert set(opened.tensors) == {"m.weight", "expected"}
        found, expected = opened.read("m.weight"), opened.read("expected")
        rows, middle = len(found), opened.read_rows("m.weight", 5, 23)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_array_equal(middle, found[5:23])
    assert rows > 23
    if case == "bitsandbytes-int8":  # code * (SCB / 127) here, (code * SCB) * (1 / 127) there
        np.testing.assert_allclose(found, expected, rtol=2**-22)
    else:
        rounded = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}[dtype]
        np.testing.assert_array_equal(found.astype(rounded).astype(np.float32), expected)


@pytest.mark.parametrize("case", CASES)
def test_surveys_bound_what_is_there(case: str, tmp_path: Path) -> None:
    folder, _ = checkpoint(case, tmp_path)
    with open_checkpoint(folder) as opened:
        matrix = opened.packed["m.weight"]
        survey, rows = matrix.survey(), matrix.rows(0, matrix.shape[0])
    if survey.highest:
        assert rows.codes.dtype == np.int16
        assert survey.lowest <= rows.codes.min() and rows.codes.max() <= survey.highest
    assert survey.even == ("act-order" not in case and case not in ("compressed-tensors-fp8-block",))
