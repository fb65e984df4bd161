"""Checkpoints that are quantized already: which codes are kept, what becomes of the others, and that models run."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import quantized_checkpoints as made
import random_checkpoints
from safetensors.numpy import load_file, save_file

from edgeq.blocks import reference
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.cli import main
from edgeq.container.reader import File, open_file
from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.quantize import jobs
from edgeq.quantize.converted import Report
from edgeq.quantize.kept import ENCODED, EXACT, ROUNDED
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "quantized"
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
AUTO_AWQ: dict[str, Any] = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4}
COMPRESSED: dict[str, Any] = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
GROUPS: dict[str, Any] = {
    f"group_{i}": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int"}} for i, bits in enumerate((8, 4))
}
INT: dict[str, Any] = {"quant_method": "compressed-tensors", "format": "int-quantized"}
BNB: dict[str, Any] = {"quant_method": "bitsandbytes"}
GEMMA: dict[str, Any] = {"quant_method": "gemma", "num_bits": 4}
FOUR = {r"\.mlp\.": {"num_bits": 4}, "self_attn": {"num_bits": 4}}
MODELOPT: dict[str, Any] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
MLX: dict[str, Any] = {"group_size": 32, "mode": "affine"}
FP8: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [32, 32]}

# name -> (method, quantization_config, type of the projections, how)
CASES: dict[str, tuple[made.Method, dict[str, Any], str, str]] = {
    "gptq": (made.gptq(), GPTQ, "Q4_0", EXACT),
    "gptq-v2": (made.gptq(version=2), GPTQ | {"checkpoint_format": "gptq_v2"}, "Q4_0", EXACT),
    "gptq-channel": (made.gptq(size=-1), GPTQ | {"group_size": -1}, "Q4_0", EXACT),
    "gptq-without-g_idx": (made.gptq(index=False), GPTQ, "Q4_0", EXACT),
    "gptq-asymmetric": (made.gptq(symmetric=False), GPTQ, "Q5_0", EXACT),
    "gptq-2": (made.gptq(2, symmetric=False), GPTQ | {"bits": 2}, "Q4_0", EXACT),
    "gptq-3": (made.gptq(3, symmetric=False), GPTQ | {"bits": 3}, "Q4_0", EXACT),
    "gptq-8": (made.gptq(8), GPTQ | {"bits": 8}, "Q8_0", EXACT),
    "gptq-8-asymmetric": (made.gptq(8, symmetric=False), GPTQ | {"bits": 8}, "Q8_0", ENCODED),
    "gptq-group-16": (made.gptq(size=16), GPTQ | {"group_size": 16}, "Q6_K", ENCODED),
    "gptq-act-order": (made.gptq(act_order=True), GPTQ | {"desc_act": True}, "Q6_K", ENCODED),
    "gptq-act-order-channel": (made.gptq(size=-1, act_order=True), GPTQ | {"group_size": -1}, "Q4_0", EXACT),
    "awq": (made.awq(), AWQ, "Q5_0", EXACT),
    "auto-round": (made.gptq(index=False), {"quant_method": "auto-round", "bits": 4}, "Q4_0", EXACT),
    "auto-round-awq": (made.awq(), AUTO_AWQ, "Q5_0", EXACT),
    "compressed-int4": (made.pack_quantized(), COMPRESSED, "Q4_0", EXACT),
    "compressed-int4-asymmetric": (made.pack_quantized(symmetric=False), COMPRESSED, "Q5_0", EXACT),
    "compressed-int4-act-order": (made.pack_quantized(act_order=True), COMPRESSED, "Q6_K", ENCODED),
    "compressed-int8-packed": (made.pack_quantized(8, -1), COMPRESSED, "Q8_0", EXACT),
    "compressed-int4-declared": (made.pack_quantized(), COMPRESSED | {"config_groups": GROUPS}, "Q4_0", EXACT),
    "compressed-int8": (made.int8(np.float16), INT, "Q8_0", EXACT),
    "compressed-int8-f32-scales": (made.int8(), INT, "Q8_0", ROUNDED),
    "llm-int8": (made.int8(name="SCB", factor=127.0), BNB, "Q8_0", ROUNDED),
    "nf4-32": (made.nf4(32), BNB, "Q6_K", ENCODED),
    "nf4": (made.nf4(), BNB, "NF4", EXACT),
    "nf4-stored-as-bf16": (made.nf4(storage="<u2"), BNB, "NF4", EXACT),
    "fp8": (made.fp8(), FP8, "Q8_0", ENCODED),
    "gemma-2": (made.gemma(2, np.float16), GEMMA | {"num_bits": 2}, "Q4_0", EXACT),
    "gemma-4": (made.gemma(4, np.float16), GEMMA, "Q4_0", EXACT),
    "gemma-4-f32-scales": (made.gemma(4), GEMMA | {"num_bits": 2, "module_quant_configs": FOUR}, "Q4_0", ROUNDED),
    "gemma-8": (made.gemma(8, np.float16), GEMMA, "Q8_0", EXACT),
    **{f"mlx-{bits}": (made.mlx(bits), MLX | {"bits": bits}, "Q4_1", EXACT) for bits in (2, 3, 4)},
    "mlx-bf16": (made.mlx(dtype=ml_dtypes.bfloat16), MLX | {"bits": 4}, "Q4_1", EXACT),
    "mlx-f32": (made.mlx(dtype=np.float32), MLX | {"bits": 4}, "Q4_1", ROUNDED),
    "mlx-5": (made.mlx(5), MLX | {"bits": 5}, "Q5_1", EXACT),
    "mlx-6": (made.mlx(6), MLX | {"bits": 6}, "Q8_0", ENCODED),
    "mlx-8": (made.mlx(8), MLX | {"bits": 8}, "Q8_0", ENCODED),
    "modelopt-nvfp4": (made.nvfp4, MODELOPT, "NVFP4_W", ROUNDED),
    "mlx-nvfp4": (partial(made.nvfp4, whole=False), {"mode": "nvfp4", "bits": 4}, "NVFP4_W", EXACT),
    "mlx-mxfp4": (made.mlx_mxfp4, {"mode": "mxfp4", "bits": 4}, "MXFP4", EXACT),
}


def projections(file: File, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Hugging Face name -> weights of the layers' matrices in the file."""
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    found = {}
    for i in range(config["num_hidden_layers"]):
        for own, theirs in names.items():
            tensor = file.tensors[f"blk.{i}.{own}.weight"]
            data = np.asarray(file.data(tensor.name))
            found[f"model.layers.{i}.{theirs}.weight"] = reference.decode(data, *tensor.shape, tensor.type)
    return found


def converted(case: str, folder: Path, type: str | None = None) -> tuple[Report, dict[str, np.ndarray], dict[str, Any]]:
    """(report, weights that the checkpoint stands for, weights in the file)."""
    method, quantization, _, _ = CASES[case]
    checkpoint, weights = made.write("llama", method, quantization, folder / "checkpoint")
    report = convert(checkpoint, folder / "m.eqf", type, threads=1, allow_no_tokenizer=True)
    with open_file(folder / "m.eqf") as file:
        return report, weights, projections(file, file.metadata["config"])


@pytest.mark.parametrize("case", CASES)
def test_codes_are_kept_where_a_type_holds_them(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, kind, how = CASES[case]
    if kind not in BLOCK_TYPES:
        kind, how = "Q6_K", ENCODED
    if kind == "NF4":  # whose blocks of 64 must not run on into the next row
        wide = random_checkpoints.CASES["llama"] | {"intermediate_size": 192}
        monkeypatch.setitem(random_checkpoints.CASES, "llama", wide)
    report, weights, found = converted(case, tmp_path)
    quantized = [tensor for tensor in report.tensors if tensor.kept]
    assert len(quantized) == 14
    assert {(tensor.type, tensor.kept.how) for tensor in quantized if tensor.kept} == {(kind, how)}
    rounding = 2**-10 if case == "mlx-f32" else 2**-11  # offsets and scales, which are larger than their sums
    bound = {EXACT: 0.0, ROUNDED: rounding, ENCODED: 0.03}[how]
    for name, kept in found.items():
        error = np.sqrt(np.mean((kept - weights[name]) ** 2) / np.mean(weights[name] ** 2))
        assert error <= bound, name
        if how != ENCODED and case != "mlx-f32":
            assert (np.abs(kept - weights[name]) <= bound * np.abs(weights[name]) * 1.001).all()
    assert len(report.quantized) == 1 and f"({kind}" in report.quantized[0]
    assert ("encoded again" in report.quantized[0]) == (how == ENCODED)


def test_the_error_of_encoding_again_is_measured(tmp_path: Path) -> None:
    report, weights, found = converted("gptq-act-order", tmp_path)
    errors = {tensor.name: tensor.error for tensor in report.tensors if tensor.error is not None}
    assert len(errors) == 14
    k = "model.layers.1.self_attn.k_proj.weight"  # of 32 rows: all are in the sample
    expected = np.sqrt(np.mean((found[k] - weights[k]) ** 2) / np.mean(weights[k] ** 2))
    assert errors["blk.1.attn_k.weight"] == pytest.approx(expected, rel=1e-5)
    assert f"RMS error {max(errors.values()):.2%}" in report.quantized[0]
    assert "not every 32 columns share a scale" in report.quantized[0]


@pytest.mark.parametrize("case", ["gptq", "gptq-act-order", "awq", "nf4", "fp8"])
def test_a_type_that_is_asked_for_is_given(case: str, tmp_path: Path) -> None:
    """In F32 it is the library's weights; a type that happens to hold the codes keeps them."""
    report, weights, found = converted(case, tmp_path, "F32")
    assert {tensor.type for tensor in report.tensors} == {"F32"}
    for name, exact in found.items():
        np.testing.assert_array_equal(exact, weights[name])
    report, weights, found = converted(case, tmp_path, "Q4_0")
    for tensor in report.tensors:
        if tensor.kept:
            assert (tensor.type, tensor.kept.how) == ("Q4_0", EXACT if case == "gptq" else ENCODED)


@pytest.mark.parametrize("case", ["gptq", "gptq-act-order", "awq", "nf4", "compressed-int4", "fp8"])
def test_chunks_do_not_change_the_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted(case, tmp_path)
    whole = (tmp_path / "m.eqf").read_bytes()
    monkeypatch.setattr(jobs, "CHUNK_BYTES", 16 * 64 * 4)
    converted(case, tmp_path)
    assert (tmp_path / "m.eqf").read_bytes() == whole


def test_fused_matrices_are_cut_from_their_codes(tmp_path: Path) -> None:
    """Phi-3 has q, k and v in one matrix, gate and up in another."""
    checkpoint, weights = made.write("phi3", made.awq(), AWQ, tmp_path / "checkpoint")
    report = convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    assert {tensor.type for tensor in report.tensors if tensor.kept} == {"Q5_0"}
    with open_file(tmp_path / "m.eqf") as file:
        parts = [file.tensors[f"blk.0.attn_{part}.weight"] for part in "qkv"]
        found = [reference.decode(np.asarray(file.data(t.name)), *t.shape, t.type) for t in parts]
    np.testing.assert_array_equal(np.concatenate(found), weights["model.layers.0.self_attn.qkv_proj.weight"])


def test_experts_keep_their_codes(tmp_path: Path) -> None:
    checkpoint, weights = made.write("qwen3-moe", made.gptq(), GPTQ, tmp_path / "checkpoint")
    report = convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    assert {tensor.type for tensor in report.tensors if tensor.kept} == {"Q4_0"}
    with open_file(tmp_path / "m.eqf") as file:
        tensor = file.tensors["blk.1.ffn_down_exps.weight"]
        experts, rows, columns = tensor.shape
        found = reference.decode(np.asarray(file.data(tensor.name)), experts * rows, columns, tensor.type)
    expected = [weights[f"model.layers.1.mlp.experts.{i}.down_proj.weight"] for i in range(experts)]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_experts_of_gpt_oss_keep_their_codes(tmp_path: Path) -> None:
    """Rows of gate and up take turns in one tensor of all experts."""
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    checkpoint, weights = made.write("gpt-oss-no-window", made.mxfp4, quantization, tmp_path / "checkpoint")
    report = convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    kind = "MXFP4" if "MXFP4" in BLOCK_TYPES else "Q5_0"
    assert report.quantized == [f"MXFP4: 9 tensors kept exactly, codes and scales ({kind})"] and not report.skipped
    gate_up, down = (weights[f"model.layers.2.mlp.experts.{name}_proj"] for name in ("gate_up", "down"))
    with open_file(tmp_path / "m.eqf") as file:
        for part, expected in (("gate", gate_up[..., 0::2]), ("up", gate_up[..., 1::2]), ("down", down)):
            tensor = file.tensors[f"blk.2.ffn_{part}_exps.weight"]
            experts, rows, columns = tensor.shape
            found = reference.decode(np.asarray(file.data(tensor.name)), experts * rows, columns, tensor.type)
            np.testing.assert_array_equal(found.reshape(tensor.shape), expected.swapaxes(1, 2))
    plain = random_checkpoints.write("gpt-oss-no-window", tmp_path / "plain")
    save_file({name: np.ascontiguousarray(w) for name, w in weights.items()}, plain / "model.safetensors")
    prompt, found = random_checkpoints.make("gpt-oss-no-window")[2], []
    for folder in (checkpoint, plain):
        convert(folder, tmp_path / "m.eqf", "F32", threads=1, allow_no_tokenizer=True)
        found.append(logits(tmp_path / "m.eqf", prompt))
    np.testing.assert_array_equal(*found)


def test_gpt2_is_not_turned_twice(tmp_path: Path) -> None:
    checkpoint, weights = made.write("gpt2", made.gptq(), GPTQ, tmp_path / "checkpoint")
    convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    with open_file(tmp_path / "m.eqf") as file:
        tensor = file.tensors["blk.0.ffn_down.weight"]
        found = reference.decode(np.asarray(file.data(tensor.name)), *tensor.shape, tensor.type)
    np.testing.assert_array_equal(found, weights["transformer.h.0.mlp.c_proj.weight"].T)


def logits(path: Path, prompt: list[int]) -> np.ndarray:
    with open_file(path) as file, Session(file, context=len(prompt), threads=2) as session:
        return session.eval(prompt, all_logits=True)


@pytest.mark.parametrize("case", ["gptq", "gptq-asymmetric", "awq", "nf4"])
def test_logits_are_those_of_the_dequantized_weights(case: str, tmp_path: Path) -> None:
    """transformers' logits of the weights that the checkpoint stands for: as F32 the same; with kept codes what is
    left is the rounding of activations to 8 bits, and of the head."""
    converted(case, tmp_path, "F32")
    prompt = random_checkpoints.make("llama")[2]
    expected = np.load(GOLDEN / "llama-logits.npz")[case]
    assert np.abs(logits(tmp_path / "m.eqf", prompt) - expected).max() <= 1e-3
    converted(case, tmp_path)
    found = logits(tmp_path / "m.eqf", prompt)
    assert np.sqrt(np.mean((found - expected) ** 2)) <= (0.12 if case == "nf4" else 0.05) * expected.std()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.85


@pytest.mark.parametrize(("case", "names"), [("qwen3-moe", {}), ("mixtral", {"w1": "gate_proj", "w2": "down_proj"})])
def test_experts_that_mlx_has_stacked_are_those_of_the_original(case: str, names: dict[str, str], tmp_path: Path):
    """The same file as from experts with tensors of their own; one kind of matrix has bits of its own."""
    config, weights, _ = random_checkpoints.make(case)
    apart: dict[str, np.ndarray] = {}
    for name, w in weights.items():
        if ".experts." in name:
            bits = 3 if name.endswith(("down_proj.weight", "w2.weight")) else 4
            parts, _ = made.mlx(bits)(w)
            apart |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
        else:
            apart[name] = w
    together, stacks = {}, {}
    for name, value in apart.items():
        if ".experts." not in name:
            together[name] = value
            continue
        module, _, rest = name.partition(".experts.")
        expert, matrix, part = rest.split(".")
        matrix = {**names, "w3": "up_proj"}.get(matrix, matrix)
        stacks.setdefault(f"{module}.switch_mlp.{matrix}.{part}", []).append((int(expert), value))
    together |= {
        name: np.stack([value for _, value in sorted(found, key=lambda one: one[0])]) for name, found in stacks.items()
    }
    narrow = ("down_proj.weight", "w2.weight")
    settings = {name.removesuffix(".weight"): {"bits": 3} for name in [*apart, *stacks] if name.endswith(narrow)}
    files = []
    for name, tensors in (("apart", apart), ("together", together)):
        folder = tmp_path / name
        folder.mkdir()
        quantization = MLX | {"bits": 4} | settings
        (folder / "config.json").write_text(json.dumps(config | {"quantization": quantization}))
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / "model.safetensors")
        report = convert(folder, tmp_path / f"{name}.eqf", allow_no_tokenizer=True)
        assert {tensor.type for tensor in report.tensors if tensor.kept} == {"Q4_1"} and not report.unused
        with open_file(tmp_path / f"{name}.eqf") as file:
            files.append({name: bytes(file.data(name)) for name in file.tensors})
    assert files[0] == files[1]


def change(folder: Path, **tensors: Any) -> None:
    """Replace tensors of layer 0's q projection."""
    found = load_file(folder / "model.safetensors")
    stem = "model.layers.0.self_attn.q_proj."
    found |= {stem + name: value(found[stem + name]) for name, value in tensors.items()}
    save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "quanto"}, "'quanto'"),
        ({"quant_method": "torchao"}, "no torchao tensors"),
        ({"bits": 4}, "None"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"}, "'auto_round:llm_compressor'"),
        (GPTQ | {"checkpoint_format": "marlin"}, "'marlin'"),
        (GPTQ | {"is_marlin_format": True}, "'marlin'"),
        (AWQ | {"version": "gemv_fast"}, "'gemv_fast'"),
        (AWQ | {"version": "gemv", "group_size": 0}, "group_size 0"),
        (AWQ | {"bits": 8}, "8 bits"),
        (COMPRESSED | {"format": "mxfp6-pack-quantized"}, "'mxfp6-pack-quantized'"),
        (COMPRESSED | {"format": "marlin-24"}, "'marlin-24'"),
        (COMPRESSED | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "'sparse-24-bitmask'"),
        (COMPRESSED | {"transform_config": {"config_groups": {"R1": {}}}}, "transformed"),
        (FP8 | {"weight_block_size": [0, 128]}, "weight_block_size"),
        ("gptq", "None"),
        ({"quant_method": ["gptq"]}, "['gptq']"),
        ({"quant_method": "gptq", "checkpoint_format": ["gptq"]}, "['gptq']"),
        (INT | {"config_groups": {"a": 1, "b": {"weights": 2}}, "format": 3}, "3"),
    ],
)
def test_unsupported_variants_are_refused_in_one_line(
    quantization: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, _ = made.write("llama", made.gptq(), quantization, tmp_path / "checkpoint")
    assert main(["convert", str(checkpoint), "-o", str(tmp_path / "m.eqf"), "--allow-no-tokenizer"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and str(checkpoint) in error
    assert not (tmp_path / "m.eqf").exists()


@pytest.mark.parametrize(
    ("method", "quantization", "tensors", "error", "message"),
    [
        (made.gptq(), GPTQ, {"scales": lambda s: s * np.float16(np.inf)}, CheckpointError, "a scale is not finite"),
        (made.gptq(), GPTQ, {"g_idx": lambda g: g + 1}, CheckpointError, "groups 1 to 2, there are 2"),
        (made.gptq(), GPTQ, {"qzeros": lambda z: z[:1]}, CheckpointError, "scales"),
        (made.gptq(), GPTQ, {"qzeros": lambda z: z[:, :1]}, UnsupportedError, "2, 3, 4 and 8"),
        (made.gptq(), GPTQ, {"qweight": lambda q: q[:5]}, CheckpointError, "g_idx"),
        (made.awq(), AWQ, {"scales": lambda s: s[:, :8]}, CheckpointError, "scales"),
        (made.pack_quantized(), COMPRESSED, {"weight_shape": lambda s: s // 3}, UnsupportedError, "packing"),
        (made.pack_quantized(), COMPRESSED, {"weight_scale": lambda s: s[:5]}, CheckpointError, "scales"),
        (
            made.pack_quantized(3),
            COMPRESSED | {"config_groups": GROUPS},
            {},
            CheckpointError,
            "codes of 3 bits, config.json says 4 or 8",
        ),
        (made.nf4(), BNB, {"weight.absmax": lambda a: a[:5]}, CheckpointError, "absmax"),
        (made.nf4(), BNB, {"weight.quant_state.bitsandbytes__nf4": lambda s: s[:9]}, CheckpointError, "quant_state"),
        (made.int8(), INT, {"weight_scale": lambda s: s[:5]}, CheckpointError, "blocks"),
    ],
)
def test_damaged_checkpoints_are_refused(
    method: made.Method, quantization: Any, tensors: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    checkpoint, _ = made.write("llama", method, quantization, tmp_path / "checkpoint")
    change(checkpoint, **tensors)
    with pytest.raises(error, match=message) as caught:
        convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)
    assert not (tmp_path / "m.eqf").exists()


def test_the_command_line_tells_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, _ = made.write("llama", made.gptq(), GPTQ, tmp_path / "llama-GPTQ")
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(checkpoint), "--allow-no-tokenizer", "-t", "1"]) == 0
    line = "GPTQ 4-bit: 14 tensors kept exactly, codes and scales (Q4_0)"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["show", "llama-GPTQ.eqf", "--json"]) == 0
    provenance = json.loads(capsys.readouterr().out)["provenance"]
    assert provenance["quantized"] == line and provenance["recipe"] == "kept"


def test_settings_may_lie_beside_the_configuration(tmp_path: Path) -> None:
    """As AutoGPTQ first wrote them; scales of activations are no tensors left over."""
    checkpoint, _ = made.write("llama", made.gptq(), {}, tmp_path / "checkpoint")
    (checkpoint / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32, "desc_act": False}))
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.input_scale"] = np.ones(1, np.float32)
    save_file(weights, checkpoint / "model.safetensors")
    report = convert(checkpoint, tmp_path / "m.eqf", threads=1, allow_no_tokenizer=True)
    assert report.quantized == ["GPTQ 4-bit: 14 tensors kept exactly, codes and scales (Q4_0)"]
    assert not report.skipped


MEMORY = """
import resource, sys
from edgeq.quantize.pipeline import convert
convert(sys.argv[1], sys.argv[3], threads=1, allow_no_tokenizer=True)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(sys.argv[2], sys.argv[3], threads=1, allow_no_tokenizer=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


def test_memory_does_not_grow_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 300 MB in f32 adds a few chunks and what one matrix is stored in."""
    wide = random_checkpoints.CASES["llama"] | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 5}
    monkeypatch.setitem(random_checkpoints.CASES, "wide", wide)
    random = np.random.RandomState(1)

    def gptq(w: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows, columns = w.shape
        codes = random.randint(-(2**31), 2**31, (columns // 8, rows), np.int64).astype(np.int32)
        zeros = np.full((columns // 128, rows // 8), 0x77777777, np.int32)
        return {"qweight": codes, "qzeros": zeros, "scales": np.full((columns // 128, rows), 0.01, np.float16)}, w

    small, _ = made.write("llama", made.gptq(), GPTQ, tmp_path / "small")
    large, _ = made.write("wide", gptq, GPTQ, tmp_path / "large")
    command = [sys.executable, "-c", MEMORY, str(small), str(large), str(tmp_path / "m.eqf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120, done.stdout


def test_packed_embeddings(tmp_path: Path) -> None:
    """Gemma's have names of their own; patterns say the bits of each."""
    config, weights, _ = random_checkpoints.make("gemma4")
    stored, meant = {}, {}
    for name, w in weights.items():
        if "embed_tokens" not in name:
            stored[name] = w
            continue
        parts, meant[name] = made.gemma(2 if "per_layer" in name else 4)(w)
        module = name.removesuffix(".weight")
        stored |= {f"{module}.embedding_quantized": parts["weight"], f"{module}.embedding_scale": parts["weight_scale"]}
    patterns = {"embed_tokens_per_layer": {"num_bits": 2}, "embed_tokens": {"num_bits": 4}}
    quantization = {"quant_method": "gemma", "num_bits": 8, "module_quant_configs": patterns}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    save_file(stored, tmp_path / "model.safetensors")
    convert(tmp_path, tmp_path / "m.eqf", "F32", threads=1, allow_no_tokenizer=True)
    names = {"token_embd": "embed_tokens", "per_layer_token_embd": "embed_tokens_per_layer"}
    with open_file(tmp_path / "m.eqf") as file:
        for own, theirs in names.items():
            tensor = file.tensors[f"{own}.weight"]
            found = reference.decode(np.asarray(file.data(tensor.name)), *tensor.shape, tensor.type)
            np.testing.assert_array_equal(found, meant[f"model.{theirs}.weight"])
    quantization["num_bits"], quantization["module_quant_configs"] = 8, {}
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    with pytest.raises(CheckpointError, match=r"num_bits of model\.embed_tokens.* is 8, its matrix has 2 or 4"):
        convert(tmp_path, tmp_path / "m.eqf", "F32", threads=1, allow_no_tokenizer=True)
