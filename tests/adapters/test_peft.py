"""Folders of PEFT: what their keys mean, and what is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from adapter_cases import folder
from architecture_cases import CASES
from encoder_cases import ENCODERS
from safetensors.numpy import load_file, save_file

from edgeq.adapters.adapter import Adapter, Pair
from edgeq.adapters.fitting import fitted
from edgeq.adapters.given import wanted
from edgeq.adapters.patterns import Patterns
from edgeq.adapters.peft import read_peft
from edgeq.engine.model import Model
from edgeq.errors import CheckpointError, EdgeqError, NotFoundError, UnsupportedError, UsageError
from edgeq.models import architecture

WEIGHTS = "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of the Llama's, to be spoilt."""
    return shutil.copytree(folder("llama"), tmp_path / "adapter")


def change(adapter: Path, **keys: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **keys}))


def tensors(adapter: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    found = load_file(adapter / WEIGHTS)
    change(found)
    save_file(found, adapter / WEIGHTS)


def test_scales_follow_patterns_and_the_root_of_the_rank() -> None:
    pairs = read_peft(folder("qwen2-tied-head")).pairs
    assert pairs["model.layers.0.self_attn.k_proj.weight"].factor == 3 / 2
    assert pairs["model.layers.1.self_attn.k_proj.weight"].factor == 8 / 2
    assert pairs["model.layers.1.mlp.down_proj.weight"].factor == 3 / 1
    assert pairs["lm_head.weight"].factor == 3 / 2
    assert read_peft(folder("llama-rslora")).pairs["model.layers.0.self_attn.v_proj.weight"].factor == 4 / 3**0.5


def test_names_of_an_adapter_that_was_not_saved_by_peft(adapter: Path) -> None:
    """Its own name in those of tensors, and none of peft's prefix."""
    before = read_peft(adapter)
    renamed = {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): tensor
        for name, tensor in load_file(adapter / WEIGHTS).items()
    }
    save_file(renamed, adapter / WEIGHTS)
    assert read_peft(adapter).pairs.keys() == before.pairs.keys()


def test_weights_as_torch_saves_them(adapter: Path) -> None:
    before = read_peft(adapter).pairs
    torch_files.write(adapter / "adapter_model.bin", load_file(adapter / WEIGHTS))
    (adapter / WEIGHTS).unlink()
    found = read_peft(adapter).pairs
    assert found.keys() == before.keys()
    for name, pair in found.items():
        np.testing.assert_array_equal(pair.a, before[name].a)
        np.testing.assert_array_equal(pair.b, before[name].b)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "LOKR"}, "is an adapter of type LOKR: LORA can be applied"),
        ({"peft_type": None}, "is an adapter of type None"),
        ({"use_dora": True}, "has DoRA, which cannot be applied"),
        ({"modules_to_save": ["embed_tokens"]}, r"trained whole \(modules_to_save\)"),
        ({"trainable_token_indices": [1]}, "trained embeddings of tokens"),
        ({"target_parameters": ["experts.down_proj"]}, "parameters of experts"),
        ({"layer_replication": [[0, 1]]}, "layers that are repeated"),
        ({"lora_bias": True}, "a trained bias"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights is pissa_niter_4, which has changed the base model",
        ),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(keys: dict[str, Any], message: str, adapter: Path) -> None:
    change(adapter, **keys)
    with pytest.raises(UnsupportedError, match=rf"adapter_config\.json: .*{message}"):
        read_peft(adapter)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"r": 3}, r"_proj has rank 2, adapter_config\.json says 3"),
        ({"r": "two"}, "r is two, a number is needed"),
        ({"lora_alpha": None}, "lora_alpha is None, a number is needed"),
        ({"rank_pattern": {"k_proj": 7}}, "k_proj has rank 2, .* says 7"),
        ({"rank_pattern": {"(": 7}}, "is no regular expression"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no object"),
        ({"alpha_pattern": {"q_proj": True}}, "q_proj is True, a number is needed"),
    ],
)
def test_configurations_that_do_not_fit_the_weights(keys: dict[str, Any], message: str, adapter: Path) -> None:
    change(adapter, **keys)
    with pytest.raises(CheckpointError, match=message):
        read_peft(adapter)


def nan(found: dict[str, np.ndarray]) -> None:
    found[f"{Q}B.weight"][3, 1] = np.nan


def ranks(found: dict[str, np.ndarray]) -> None:
    found[f"{Q}B.weight"] = np.ascontiguousarray(found[f"{Q}B.weight"][:, :1])


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda t: t.pop(f"{Q}B.weight"), CheckpointError, "lora_A.weight' without its lora_B"),
        (lambda t: t.pop(f"{Q}A.weight"), CheckpointError, "lora_B.weight' without its lora_A"),
        (nan, CheckpointError, r"q_proj.lora_B.weight' holds nan at \[3, 1\]: the adapter is damaged"),
        (ranks, CheckpointError, "lora_A.weight' has rank 2, '.*lora_B.weight' has 1"),
        (lambda t: t.clear(), CheckpointError, "has no tensors"),
        (
            lambda t: t.update({f"{Q}A.weight": np.ones(4, np.float32)}),
            CheckpointError,
            r"is \[4\]: a matrix is needed",
        ),
        (lambda t: t.update({f"{Q}magnitude_vector": np.ones(4)}), UnsupportedError, r"magnitude_vector' \(DoRA\)"),
        (lambda t: t.update({"x.embed_tokens.lora_embedding_A": np.ones((2, 4))}), UnsupportedError, "trained embed"),
        (lambda t: t.update({"x.q_proj.bias": np.ones(4)}), UnsupportedError, r"q_proj\.bias' \(trained biases\)"),
        (lambda t: t.update({"x.q_proj.lokr_w1": np.ones((2, 4))}), UnsupportedError, "LoKr"),
        (lambda t: t.update({"x.norm.weight": np.ones(4)}), UnsupportedError, "no LoRA of a linear layer"),
    ],
)
def test_tensors_that_are_damaged_or_something_else(
    spoil: Callable[[dict[str, np.ndarray]], object], kind: type[EdgeqError], message: str, adapter: Path
) -> None:
    tensors(adapter, spoil)
    with pytest.raises(kind, match=rf"adapter_model\.safetensors: .*{message}"):
        read_peft(adapter)


def test_files_that_are_missing(adapter: Path, tmp_path: Path) -> None:
    (adapter / WEIGHTS).rename(tmp_path / "elsewhere")
    with pytest.raises(NotFoundError, match=r"no adapter_model\.safetensors"):
        read_peft(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(NotFoundError, match=r"no adapter_config\.json"):
        read_peft(adapter)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("phi3", r"adds to model\.layers\.0\.\S+, which the model \(llama, 2 layers\) has not"),
        ("gpt2", "which the model .* has not: the adapter was made for another model .random/gpt2., give that one"),
    ],
)
def test_adapters_of_another_model(name: str, message: str, llama: Model) -> None:
    with pytest.raises(CheckpointError, match=message):
        llama.generate_tokens([1], lora=[folder(name)])


def test_layers_of_another_model(adapter: Path, llama: Model) -> None:
    pair = {Q.replace("layers.0", "layers.7") + f"{which}.weight": np.ones((2, 2), np.float32) for which in "AB"}
    tensors(adapter, lambda t: t.update(pair))
    with pytest.raises(
        CheckpointError, match=r"layers\.7\.self_attn\.q_proj\.weight, which the model .llama, 2 layers."
    ):
        llama.logits([1], lora=[adapter])


def test_shapes_of_another_model(adapter: Path, llama: Model) -> None:
    tensors(adapter, lambda t: t.update({f"{Q}A.weight": np.ones((2, 80), np.float32)}))
    with pytest.raises(CheckpointError, match=r"q_proj\.weight as \[64, 80\], the model's is \[64, 64\]"):
        llama.logits([1], lora=[adapter])


@pytest.mark.parametrize(
    ("module", "message"),
    [("model.embed_tokens", "an embedding, which cannot be done"), ("mlp.experts.3.up_proj", "matrices of experts")],
)
def test_matrices_that_are_in_no_linear_layer(module: str, message: str, adapter: Path, llama: Model) -> None:
    save_file({f"{module}.lora_{which}.weight": np.ones((2, 2), np.float32) for which in "AB"}, adapter / WEIGHTS)
    with pytest.raises(UnsupportedError, match=message):
        llama.logits([1], lora=[adapter])


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("folder", "lora must be a list"),
        ([5], "5 is no adapter"),
        ([""], "'' is no adapter"),
        ([("there", "much")], "the scale of there is 'much'"),
        ([("there", float("nan"))], "the scale of there is nan"),
        (["there:inf"], "the scale of there is inf"),
    ],
)
def test_what_is_asked_for_is_checked(lora: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wanted(lora)


def test_a_path_may_hold_a_colon(tmp_path: Path) -> None:
    odd = tmp_path / "a:2"
    odd.mkdir()
    assert [tuple(one) for one in wanted([str(odd), f"{odd}:-0.5", f"{odd}:0"])] == [(odd, 1.0), (odd, -0.5)]
    with pytest.raises(NotFoundError, match=r"nothing:x: no such file"):
        wanted([str(tmp_path / "nothing:x")])


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(.*)*x", "(a|a)" * 30, "a?" * 30, ".*a.*a.*a.*b", "(?R)", "(?=a)*", "(a{2}){2}"]
)
def test_expressions_that_may_take_for_ever_are_refused(pattern: str, adapter: Path) -> None:
    change(adapter, rank_pattern={pattern: 2})
    with pytest.raises(CheckpointError, match="may take very long"):
        read_peft(adapter)


def test_expressions_as_they_are_written_are_taken() -> None:
    name = "model.layers.11.self_attn.k_proj"
    for pattern in (
        name,
        r"layers\.1[0-9]\..*k_proj",
        "(?:q|k|v)_proj",
        f"^{name}$",
        "[kv]_proj",
        r"layers\.\d+\..+k_proj",
    ):
        assert Patterns({pattern: 3.0}).of(name, 1.0) == 3.0, pattern
    assert Patterns({"k_pro": 3.0, "q_proj": 4.0}).of(name, 1.0) == 1.0
    with pytest.raises(ValueError, match="has 384 characters"):
        Patterns({".*.*x": 3.0}).of("abc" * 128, 1.0)


@pytest.mark.parametrize(
    ("config", "module", "own"),
    [
        (ENCODERS["deberta-v2"], "deberta.encoder.layer.0.attention.self.key_proj", "blk.0.attn_pos_k.weight"),
        (CASES["deepseek-v2-lite"], "model.layers.1.self_attn.kv_b_proj", "blk.1.attn_k_b.weight"),
    ],
)
def test_matrices_of_which_others_are_made(config: dict[str, Any], module: str, own: str) -> None:
    pair = Pair(np.zeros((1, 64), np.float32), np.zeros((64, 1), np.float32), 1.0)
    found = Adapter("a.safetensors", {f"{module}.weight": pair})
    with pytest.raises(UnsupportedError, match=rf"of which the file has matrices of heads \({own}\), to which nothing"):
        fitted(found, architecture(config))
