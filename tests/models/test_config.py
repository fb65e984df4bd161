"""What is read from config.json, and how a configuration that cannot be run is refused: in one line, by name."""

import math
from typing import Any

import pytest
import random_checkpoints

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models import architecture

LLAMA = random_checkpoints.CASES["llama"]
MISTRAL = random_checkpoints.CASES["mistral-no-window"]
QWEN2 = random_checkpoints.CASES["qwen2"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_type": "gpt2"}, UnsupportedError, "model_type 'gpt2' is not supported; supported are llama, mistral"),
        ({"model_type": None}, UnsupportedError, "model_type None is not supported"),
        ({"hidden_act": "gelu"}, UnsupportedError, "hidden_act 'gelu' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, UnsupportedError, "rope scaling 'yarn' is not supported"),
        ({"rope_scaling": "linear"}, CheckpointError, "rope scaling is 'linear', an object is needed"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, CheckpointError, "factor is 0, a positive number"),
        ({"hidden_size": None}, CheckpointError, "hidden_size is None, a positive integer is needed"),
        ({"hidden_size": 64.0}, CheckpointError, "hidden_size is 64.0"),
        ({"num_hidden_layers": True}, CheckpointError, "num_hidden_layers is True"),
        ({"vocab_size": -1}, CheckpointError, "vocab_size is -1"),
        ({"rms_norm_eps": math.nan}, CheckpointError, "rms_norm_eps is nan, a positive number is needed"),
        ({"rope_theta": "10000"}, CheckpointError, "rope_theta is '10000'"),
        ({"num_key_value_heads": 3}, CheckpointError, "4 attention heads cannot share 3 key/value heads evenly"),
        ({"head_dim": 15}, CheckpointError, "head_dim is 15"),
        ({"model_type": "mistral", "sliding_window": "wide"}, CheckpointError, "sliding_window is 'wide'"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": None},
            CheckpointError,
            "max_window_layers is None",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        architecture({**LLAMA, **change}, "m/config.json")
    assert str(caught.value).startswith("m/config.json: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LLAMA, [None, None]),
        ({**LLAMA, "sliding_window": 8}, [None, None]),
        (MISTRAL, [None, None]),
        ({**MISTRAL, "sliding_window": 8}, [8, 8]),
        ({key: value for key, value in MISTRAL.items() if key != "sliding_window"}, [4096, 4096]),
        ({**QWEN2, "sliding_window": 8, "max_window_layers": 0}, [None, None]),
        ({**QWEN2, "sliding_window": None, "max_window_layers": None}, [None, None]),
        ({**QWEN2, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, [None, 8]),
        ({**QWEN2, "use_sliding_window": True, "sliding_window": 8}, [None, None]),
    ],
)
def test_windows(config: dict[str, Any], windows: list[int | None]) -> None:
    """As transformers reads them, defaults included: 4096 for Mistral, layers from 28 on for Qwen2."""
    model = architecture(config)
    assert [model.layer_heads(layer).sliding_window for layer in range(2)] == windows


def test_defaults() -> None:
    """A configuration of Llama 1's time."""
    old = ("num_key_value_heads", "rope_theta", "attention_bias", "mlp_bias", "tie_word_embeddings", "rms_norm_eps")
    model = architecture({key: value for key, value in LLAMA.items() if key not in old})
    assert (model.heads.num_key_value_heads, model.heads.head_dim, model.rms_norm_eps) == (4, 16, 1e-6)
    assert model.rope.inverse_frequencies[1] == pytest.approx(10000 ** (-2 / 16))
    assert "output.weight" in model.expected() and "blk.0.attn_q.bias" not in model.expected()


def test_rope_of_both_spellings() -> None:
    scaling = {"type": "linear", "factor": 2.0}
    old = architecture({**LLAMA, "rope_theta": 500.0, "rope_scaling": scaling})
    new = architecture({**LLAMA, "rope_theta": None, "rope_parameters": {**scaling, "rope_theta": 500.0}})
    plain = architecture({**LLAMA, "rope_theta": 500.0})
    assert old.rope == new.rope
    assert old.rope.inverse_frequencies == tuple(f / 2 for f in plain.rope.inverse_frequencies)


def test_llama3_scaling() -> None:
    """Short wavelengths as they were, long ones divided by the factor, and between them a blend."""
    plain = architecture(LLAMA).rope.inverse_frequencies
    scaled = architecture(random_checkpoints.CASES["llama-rope-llama3"]).rope.inverse_frequencies
    ratios = [s / p for s, p in zip(scaled, plain, strict=True)]
    assert ratios[0] == pytest.approx(1) and ratios[-1] == pytest.approx(1 / 8)
    assert any(1 / 8 + 1e-6 < ratio < 1 - 1e-6 for ratio in ratios)
    assert ratios == sorted(ratios, reverse=True)


def test_tensor_names() -> None:
    model = architecture(LLAMA)
    assert model.tensor_name("model.layers.11.self_attn.o_proj.weight") == "blk.11.attn_output.weight"
    assert model.tensor_name("model.layers.0.mlp.down_proj.weight") == "blk.0.ffn_down.weight"
    assert model.tensor_name("lm_head.weight") == "output.weight"
    assert architecture(QWEN2).tensor_name("lm_head.weight") is None
    assert architecture(QWEN2).tensor_name("model.layers.1.self_attn.k_proj.bias") == "blk.1.attn_k.bias"
    for unknown in ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.x.mlp.up_proj.weight", "head.weight"):
        assert model.tensor_name(unknown) is None


@pytest.mark.parametrize("case", random_checkpoints.CASES)
def test_a_checkpoint_has_what_is_expected(case: str) -> None:
    config = random_checkpoints.CASES[case]
    model = architecture(config)
    names = {model.tensor_name(name): shape for name, shape in random_checkpoints.shapes(config).items()}
    assert names == model.expected()
