"""Which type keeps what quantization libraries stored (tests/golden/quantized), and that it is what they decode."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from edgeq.blocks import reference
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.checkpoints import open_checkpoint
from edgeq.quantize.kept import ENCODED, EXACT, ROUNDED, Kept, choose, panels_of, summary

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "quantized"
EXPECTED = {
    "gptq-4-32": ("Q4_0", EXACT),
    "gptq-4-channel": ("Q4_0", EXACT),
    "gptq-4-64-asym": ("Q5_0", EXACT),
    "gptq-4-32-act-order": ("Q6_K", ENCODED),
    "gptq-2-64-asym": ("Q4_0", EXACT),
    "gptq-3-32-asym": ("Q4_0", EXACT),
    "gptq-8-128": ("Q8_0", EXACT),
    "awq-32": ("Q5_0", EXACT),
    "awq-128": ("Q5_0", EXACT),
    "compressed-tensors-int4-group": ("Q4_0", EXACT),
    "compressed-tensors-int4-group-asym": ("Q5_0", EXACT),
    "compressed-tensors-int3-group": ("Q4_0", EXACT),
    "compressed-tensors-int8-channel-packed": ("Q8_0", EXACT),
    "compressed-tensors-int8-channel": ("Q8_0", ROUNDED),
    "compressed-tensors-int8-tensor-asym": ("Q8_0", ENCODED),
    "compressed-tensors-fp8-tensor": ("Q8_0", ENCODED),
    "compressed-tensors-fp8-channel": ("Q8_0", ENCODED),
    "compressed-tensors-fp8-block": ("Q8_0", ENCODED),
    "compressed-tensors-mxfp4": ("MXFP4", EXACT),
    "compressed-tensors-nvfp4": ("NVFP4_W", ROUNDED),
    "bitsandbytes-nf4": ("NF4", EXACT) if "NF4" in BLOCK_TYPES else ("Q6_K", ENCODED),
    "bitsandbytes-nf4-nested": ("NF4", EXACT) if "NF4" in BLOCK_TYPES else ("Q6_K", ENCODED),
    "bitsandbytes-fp4": ("Q6_K", ENCODED),
    "bitsandbytes-int8": ("Q8_0", ROUNDED),
    "fp8-block-f32": ("Q8_0", ENCODED),
    "fp8-block-bf16": ("Q8_0", ENCODED),
    "mxfp4": ("MXFP4", EXACT),
    "mlx-2-32": ("Q4_1", EXACT),
    "mlx-3-64": ("Q4_1", EXACT),
    "mlx-4-64": ("Q4_1", EXACT),
    "mlx-5-32": ("Q5_1", EXACT),
    "mlx-6-64": ("Q8_0", ENCODED),
    "mlx-8-128": ("Q8_0", ENCODED),
    "mlx-mxfp4": ("MXFP4", EXACT),
    "mlx-nvfp4": ("NVFP4_W", EXACT),
    "mlx-mxfp8": ("Q8_0", ENCODED),
    "awq-gemv-32": ("Q5_0", EXACT),
    "awq-gemv-128": ("Q5_0", EXACT),
    "compressed-tensors-mxfp8": ("Q8_0", ENCODED),
    "torchao-int8": ("Q8_0", EXACT),
    "torchao-int8-dynamic": ("Q8_0", EXACT),
    "torchao-float8": ("Q8_0", ENCODED),
    "torchao-int4-asym": ("Q5_0", EXACT),
    "torchao-int4": ("Q4_0", EXACT),
    "torchao-int6-channel": ("Q8_0", EXACT),
    "torchao-int8-int4": ("Q4_0", EXACT),
    "hqq-1-64": ("Q4_1", ROUNDED),
    "hqq-2-32": ("Q4_1", ROUNDED),
    "hqq-3-64": ("Q4_1", ROUNDED),
    "hqq-4-64": ("Q4_1", ROUNDED),
    "hqq-4-16-rows": ("Q6_K", ENCODED),
    "hqq-8-128": ("Q8_0", ENCODED),
    "modelopt-nvfp4": ("NVFP4_W", ROUNDED),
    "modelopt-fp8": ("Q8_0", ENCODED),
    "modelopt-mxfp8": ("Q8_0", ENCODED),
    "quark-int4": ("Q4_0", EXACT),
    "quark-uint4": ("Q5_0", EXACT),
    "quark-uint4-order": ("Q5_0", EXACT),
    "bitnet-autobitlinear": ("TQ2_0", EXACT),
    "bitnet-bitlinear": ("TQ2_0", ROUNDED),
}


def test_every_case_is_expected() -> None:
    assert {path.stem for path in GOLDEN.glob("*.safetensors")} == EXPECTED.keys()


@pytest.mark.parametrize("case", EXPECTED)
def test_the_smallest_type_that_keeps_codes(case: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / f"{case}.safetensors", tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        quantization = json.loads(file.metadata()["quantization_config"])
    config = {"quantization_config": quantization}
    if case.startswith("mlx"):
        config["quantization"] = quantization
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as checkpoint:
        (matrix,) = checkpoint.packed.values()
        kind, kept = choose([matrix], None)
        assert (kind, kept.how) == EXPECTED[case]
        expected, dtype = checkpoint.read("expected"), checkpoint.tensors["expected"].dtype
        if kept.how == ENCODED:
            return
        found = reference.decode(panels_of(matrix.rows(0, len(expected)), kind), *expected.shape, kind)
    if kept.how == ROUNDED:
        own = 2**-8 if dtype == "BF16" else 0  # of what is expected
        offsets = 2**-10 * np.abs(expected).max() if case.startswith("hqq") else 0
        assert (np.abs(found - expected) <= (2**-11 * 1.001 + own) * np.abs(expected) + offsets).all()
    else:  # the library rounds its products to the type that it computes in
        rounded = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}[dtype]
        np.testing.assert_array_equal(found.astype(rounded).astype(np.float32), expected)


def test_summaries_count_what_became_of_tensors() -> None:
    exact, again = Kept(EXACT, "AWQ 4-bit"), Kept(ENCODED, "AWQ 4-bit", "Q4_K was asked for")
    rows = [(exact, "Q5_0", None), (exact, "Q5_0", None), (exact, "Q4_0", None), (again, "Q4_K", 0.05)]
    assert summary([*rows, (Kept(ROUNDED, "INT8", "scales"), "Q8_0", 0.0002)]) == [
        "AWQ 4-bit: 3 tensors kept exactly, codes and scales (2 Q5_0, 1 Q4_0)",
        "AWQ 4-bit: 1 tensor encoded again (Q4_K, RMS error 5.00% of the weights): Q4_K was asked for",
        "INT8: 1 tensor kept, scales rounded (Q8_0, RMS error 0.02% of the weights)",
    ]
