"""Checkpoints with adapters merged: read as any other, whatever the base stores."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import quantized_checkpoints as quantized
from adapter_cases import LLAMA, as_gguf, folder
from safetensors.numpy import load_file, save_file

import edgeq
from edgeq.adapters.given import wanted
from edgeq.adapters.merging import MergedSource
from edgeq.checkpoints import open_checkpoint
from edgeq.conversion.conversion import convert
from edgeq.errors import UsageError
from edgeq.quantize.pipeline import exact_type, key_of

A, B = folder("llama"), folder("llama-rslora")
NAME = "model.layers.1.self_attn.q_proj"


def delta(adapter: Path, module: str, factor: float) -> np.ndarray:
    found = load_file(adapter / "adapter_model.safetensors")
    a, b = (found[f"base_model.model.{module}.lora_{which}.weight"].astype(np.float64) for which in "AB")
    result: np.ndarray = factor * b @ a
    return result


def test_weights_are_the_sum(checkpoint: Callable[[str], Path]) -> None:
    source = MergedSource(checkpoint("llama"), wanted([A, f"{B}:-2"]))
    with open_checkpoint(source) as merged, open_checkpoint(checkpoint("llama")) as base:
        expected = base.read(f"{NAME}.weight") + delta(A, NAME, 5 / 2) + delta(B, NAME, -2 * 4 / 3**0.5)
        whole = merged.read(f"{NAME}.weight")
        assert np.abs(whole - expected).max() < 1e-5
        assert whole.dtype == np.float32
        rows = [merged.read_rows(f"{NAME}.weight", start, stop) for start, stop in ((0, 1), (1, 30), (30, 64))]
        assert np.abs(np.concatenate(rows) - whole).max() < 1e-6
        untouched = "model.layers.0.input_layernorm.weight"
        np.testing.assert_array_equal(merged.read(untouched), base.read(untouched))
        assert merged.merged == ("llama x 1", "llama-rslora x -2")
        assert {Path(file).parent.name for file in merged.files} == {"llama", "llama-rslora"}
        assert merged.nbytes(f"{NAME}.weight") == base.nbytes(f"{NAME}.weight")


def test_fused_and_transposed_tensors(checkpoint: Callable[[str], Path]) -> None:
    for case, name, module in (
        ("gpt2", "transformer.h.1.attn.c_attn", "transformer.h.1.attn.c_attn"),
        ("phi3", "model.layers.0.self_attn.qkv_proj", "model.layers.0.self_attn.qkv_proj"),
    ):
        added = delta(folder(case), module, {"gpt2": 2.0, "phi3": 1.0}[case])
        with open_checkpoint(MergedSource(checkpoint(case), wanted([folder(case)]))) as merged:
            found = merged.read(f"{name}.weight")
        with open_checkpoint(checkpoint(case)) as base:
            before = base.read(f"{name}.weight")
        assert np.abs(found - before - (added.T if case == "gpt2" else added)).max() < 1e-5


def test_a_head_that_was_the_embedding_becomes_its_own(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "m.eqf"
    report = convert(checkpoint("qwen2"), out, "F32", allow_no_tokenizer=True, lora=[folder("qwen2-tied-head")])
    assert any("lm_head.weight differs from model.embed_tokens.weight" in note for note in report.notes)
    with edgeq.load(out, threads=1) as model:
        assert model.file.metadata["config"]["tie_word_embeddings"] is False
        assert "output.weight" in model.file.tensors


def test_what_is_merged_changes_the_key_of_what_is_unfinished(checkpoint: Callable[[str], Path]) -> None:
    sources = [MergedSource(checkpoint("llama"), wanted(lora)) for lora in ([A], [f"{A}:2"], [B], [A, B])]
    keys = [key_of(source) for source in sources]
    assert len({*keys, key_of(checkpoint("llama"))}) == 5
    assert key_of(MergedSource(checkpoint("llama"), wanted([A]))) == keys[0]


def test_weights_in_half_precision_become_exact_floats(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The sum is no bf16 number, so what holds it exactly is F32."""
    tensors = load_file(checkpoint("llama") / "model.safetensors")
    save_file({name: values.astype(np.float16) for name, values in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(json.loads((checkpoint("llama") / "config.json").read_text())))
    with open_checkpoint(tmp_path) as base, open_checkpoint(MergedSource(tmp_path, wanted([A]))) as merged:
        assert (exact_type(base), exact_type(merged)) == ("F16", "F32")


def test_quantized_matrices_are_decoded_where_something_is_added(tmp_path: Path) -> None:
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    source, _ = quantized.write("llama", quantized.gptq(), settings, tmp_path / "m")
    with open_checkpoint(source) as base, open_checkpoint(MergedSource(source, wanted([B]))) as merged:
        assert f"{NAME}.weight" in base.packed
        assert f"{NAME}.weight" not in merged.packed
        kept = "model.layers.0.mlp.up_proj.weight"
        assert kept in merged.packed
        added = merged.read(f"{NAME}.weight") - base.read(f"{NAME}.weight")
        assert np.abs(added - delta(B, NAME, 4 / 3**0.5)).max() < 1e-5


def test_what_cannot_be_merged_into(
    file: Callable[..., Path], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"F32\.eqf: adapters are merged into a checkpoint: .* run this file with --lora"
    ):
        convert(file("llama"), tmp_path / "m.eqf", "Q8_0", lora=[A])
    with pytest.raises(UsageError, match="name the output with -o"):
        convert(checkpoint("llama"), None, "F32", lora=[A])
    own = as_gguf(tmp_path / "a.gguf", "llama", "llama", LLAMA, {})
    with pytest.raises(UsageError, match=r"a\.gguf: is a file of the adapter itself: give another name"):
        convert(checkpoint("llama"), own, "F32", allow_no_tokenizer=True, lora=[own])
