"""The tool that makes random checkpoints makes ones that other software would read too."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from edgeq.checkpoints import open_checkpoint
from edgeq.models import architecture

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_random_checkpoint.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_random_checkpoint", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_shape_is_what_its_architecture_expects(tool: ModuleType) -> None:
    for config in tool.SHAPES.values():
        model = architecture(config)
        parts = {part.source: part.shape for tensor in model.tensors.values() for part in tensor.parts}
        assert tool.tensor_shapes(config) == parts


def test_parameters_of_the_real_models(tool: ModuleType) -> None:
    """Counts as published on the models' pages."""
    counts = {s: sum(int(np.prod(t)) for t in tool.tensor_shapes(c).values()) for s, c in tool.SHAPES.items()}
    assert counts["tinyllama-1.1b"] == 1_100_048_384
    assert counts["qwen2.5-0.5b"] == 494_032_768
    assert counts["qwen2.5-1.5b"] == 1_543_714_304
    assert counts["llama-3.2-1b"] == 1_235_814_400


@pytest.mark.parametrize("shards", [1, 3])
def test_weights(tool: ModuleType, tmp_path: Path, shards: int) -> None:
    tool.make(tmp_path, "llama-tiny-test", shards=shards)
    assert len(list(tmp_path.glob("*.safetensors"))) == shards
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "np") as f:
            assert all(f.get_tensor(name).dtype == ml_dtypes.bfloat16 for name in f.keys())  # noqa: SIM118
    with open_checkpoint(tmp_path) as c:
        weights = c.read("lm_head.weight")
        assert abs(float(weights.std()) - 0.02) < 0.001 and abs(float(weights.mean())) < 0.001
        assert (c.read("model.norm.weight") == 1).all()


def test_bf16_rounds_to_nearest_even(tool: ModuleType) -> None:
    weights = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    weights[:2] = (1.00390625, 1.01171875)  # halfway between two bf16 numbers
    expected = weights.astype(ml_dtypes.bfloat16)
    assert np.array_equal(tool.stored(weights.copy(), "BF16"), expected.view(np.uint16))


def test_tokenizer_round_trip(tool: ModuleType, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tool.make(tmp_path, "llama-tiny-test")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    text = "Grüße, 世界!\n"
    ids = tokenizer.encode(f"<|im_start|>{text}<|im_end|>").ids
    assert ids[-1] == config["eos_token_id"] and len(ids) == len(text.encode()) + 2
    assert tokenizer.decode(ids) == text


def test_models_with_recurrent_layers_are_about_as_large_as_the_real_ones(tool: ModuleType) -> None:
    for shape, billions in (("qwen3.5-0.8b", 0.75), ("granite-4.0-h-1b", 1.46)):
        sizes = tool.tensor_shapes(tool.SHAPES[shape]).values()
        assert abs(sum(int(np.prod(size)) for size in sizes) / 1e9 - billions) < 0.01
