"""Adapters in GGUF, written by the gguf package as llama.cpp's converter writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import random_checkpoints
from adapter_cases import CASES, LLAMA, TOKENS, as_gguf, folder

import edgeq
from edgeq.adapters.fitting import fitted
from edgeq.adapters.reading import read_adapter
from edgeq.conversion.conversion import convert
from edgeq.engine.model import Model
from edgeq.errors import CheckpointError, EdgeqError, FormatError, UnsupportedError
from edgeq.models import architecture as architecture_of


@pytest.mark.parametrize(
    ("case", "architecture", "heads"), [("llama", "llama", {"q_proj": 4, "k_proj": 2}), ("phi3", "phi3", {})]
)
def test_it_is_the_one_that_peft_has_saved(
    case: str,
    architecture: str,
    heads: dict[str, int],
    file: Callable[..., Path],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """The same bits at run time, and merged. A Llama's queries and keys are in another order there, Phi-3's are one."""
    path, base = as_gguf(tmp_path / "a.gguf", case, architecture, LLAMA, heads), CASES[case].checkpoint
    prompt = random_checkpoints.make(base)[2][:TOKENS]
    with edgeq.load(file(base), threads=1) as model:
        found = model.logits(prompt, lora=[path])
        np.testing.assert_array_equal(found, model.logits(prompt, lora=[folder(case)]))
    convert(checkpoint(base), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True, lora=[f"{path}:1"])
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model:
        assert np.abs(model.logits(prompt) - found).max() < 1e-4


def written(path: Path, tensors: dict[str, Any], architecture: str = "llama", **metadata: Any) -> Path:
    """An adapter's file; `metadata` beside what such has, or in place of it."""
    writer = gguf.GGUFWriter(path, architecture)
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 4.0, **metadata}
    for key, value in values.items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    for name, data in tensors.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if data.dtype == np.uint8 else None
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(name: str, rows: int = 64, columns: int = 64, rank: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    a, b = random.normal(0, 1, (rank, columns)), random.normal(0, 1, (rows, rank))
    return {f"{name}.lora_a": a.astype(np.float32), f"{name}.lora_b": b.astype(np.float32)}


@pytest.mark.parametrize(
    ("alpha", "scale"), [(4.0, 2.0), (0.0, 1.0)], ids=["alpha / rank", "without alpha the scale is 1"]
)
def test_the_scale(alpha: float, scale: float, llama: Model, tmp_path: Path) -> None:
    name, prompt = "blk.1.attn_output.weight", [3, 1, 4]
    tensors = pair(name)
    path = written(tmp_path / "a.gguf", tensors, **{"adapter.lora.alpha": alpha})
    tensors[f"{name}.lora_b"] *= np.float32(scale)
    plain = written(tmp_path / "b.gguf", tensors, **{"adapter.lora.alpha": 2.0})
    np.testing.assert_array_equal(llama.logits(prompt, lora=[path]), llama.logits(prompt, lora=[plain]))


def test_types_other_than_f32(llama: Model, tmp_path: Path) -> None:
    name, prompt = "blk.0.ffn_down.weight", [3, 1, 4]
    exact = pair(name, 64, 160)
    expected = llama.logits(prompt, lora=[written(tmp_path / "a.gguf", exact)])
    quantized = gguf.quants.quantize(exact[f"{name}.lora_a"], gguf.GGMLQuantizationType.Q8_0)
    mixed = {f"{name}.lora_a": quantized, f"{name}.lora_b": exact[f"{name}.lora_b"].astype(np.float16)}
    found = llama.logits(prompt, lora=[written(tmp_path / "b.gguf", mixed)])
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


Q = "blk.0.attn_q.weight"


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind", "message"),
    [
        (pair(Q), {"general.type": "model"}, FormatError, "is no adapter"),
        (pair(Q), {"adapter.type": "lokr"}, UnsupportedError, "is an adapter of type lokr"),
        (pair(Q), {"adapter.lora.alpha": float("nan")}, FormatError, "adapter.lora.alpha is nan"),
        (pair(Q), {"architecture": "qwen2"}, CheckpointError, "for the architecture 'qwen2', the model is a 'llama'"),
        (pair(Q, rows=48), {}, CheckpointError, "adds 48 rows to blk.0.attn_q.weight, the model's has 64"),
        (
            pair(Q, columns=48),
            {},
            CheckpointError,
            r"adds to blk.0.attn_q.weight as \[64, 48\], the model's is \[64, 64",
        ),
        (pair("blk.9.attn_q.weight"), {}, CheckpointError, "adds to blk.9.attn_q.weight, which the model"),
        (pair("token_embd.weight"), {}, UnsupportedError, "token_embd.weight, an embedding"),
        (pair("blk.0.ffn_up_exps.weight"), {}, UnsupportedError, "matrices of experts"),
        ({f"{Q}.lora_a": np.ones((2, 64), np.float32)}, {}, FormatError, "has no tensor 'blk.0.attn_q.weight.lora_b'"),
        ({"blk.0.attn_norm.weight": np.ones(64, np.float32)}, {}, UnsupportedError, "is no LoRA of a matrix"),
        ({}, {}, FormatError, "has no tensors"),
    ],
)
def test_what_is_refused(
    tensors: dict[str, Any],
    metadata: dict[str, Any],
    kind: type[EdgeqError],
    message: str,
    llama: Model,
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "a.gguf", tensors, **metadata)
    with pytest.raises(kind, match=rf"a\.gguf: .*{message}"):
        llama.logits([1], lora=[path])


def test_a_head_that_is_the_embedding(file: Callable[..., Path], tmp_path: Path) -> None:
    """`output.weight` is the head, also where the model has no tensor of that name."""
    path = written(tmp_path / "a.gguf", pair("output.weight", 48), "qwen2")
    with edgeq.load(file("qwen2"), threads=1) as model:
        assert np.abs(model.logits([1, 2], lora=[path]) - model.logits([1, 2])).max() > 1
        with pytest.raises(UnsupportedError, match="an embedding"):
            model.logits([1], lora=[written(tmp_path / "b.gguf", pair("token_embd.weight", 48), "qwen2")])


def test_rows_that_take_turns(file: Callable[..., Path], tmp_path: Path) -> None:
    """GGUF's Qwen3.5 has each head's query and its gate in one matrix, head by head, as checkpoints have."""
    adds = pair("blk.2.attn_q.weight", 2 * 4 * 32)
    path = written(tmp_path / "a.gguf", adds, "qwen35")
    model = architecture_of(random_checkpoints.CASES["qwen3-5-equal-heads"])
    found, b = fitted(read_adapter(path), model), adds["blk.2.attn_q.weight.lora_b"].reshape(4, 2, 32, 2)
    for number, name in enumerate(("attn_q", "attn_gate")):
        np.testing.assert_array_equal(found[f"blk.2.{name}.weight"].b, b[:, number].reshape(-1, 2))


def test_value_heads_in_another_order(tmp_path: Path) -> None:
    """GGUF's Qwen3.5 has other neighbours among value heads than checkpoints, where these share keys."""
    config = random_checkpoints.CASES["qwen3-5"]
    there = written(tmp_path / "a.gguf", pair("blk.0.ssm_out.weight", 64, 64), "qwen35")
    with pytest.raises(UnsupportedError, match=r"a\.gguf: GGUF has the model's value heads in another order"):
        fitted(read_adapter(there), architecture_of(config))
    assert fitted(read_adapter(there), architecture_of(config | {"edgeq_heads_in_turn": True}))


def test_a_model_it_is_not(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", pair(Q))
    with pytest.raises(
        UnsupportedError, match=r"a\.gguf: is an adapter, not a model: give the model, and this with --lora"
    ):
        edgeq.load(path)


def test_what_is_no_adapter(llama: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        CheckpointError, match=r"notes\.txt: is no adapter: give a folder that PEFT has saved, or a GGUF"
    ):
        llama.logits([1], lora=[tmp_path / "notes.txt"])
