"""Gemma 3n in GGUF: what readers know by themselves, what they ask for and never read, keys as the converter's."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoints
from architecture_cases import CASES
from gguf_cases import changed

from edgeq.container.gguf_reader import open_gguf
from edgeq.conversion.conversion import convert
from edgeq.errors import EdgeqError, FormatError, UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.models import architecture
from edgeq.models.gguf import read_config, write_config

CONFIG = changed("gemma3n")
SHAPES = {
    "token_embd.weight": (50, 72),
    "per_layer_token_embd.weight": (50, 22 * 256),
    "blk.0.laurel_l.weight": (64, 72),
}


def said(**changes: Any) -> dict[str, Any]:
    """config.json of what GGUF says of the case, with other values of keys; None leaves one out."""
    metadata = write_config(CONFIG, "m", []) | {f"gemma3n.{key}": value for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return read_config({"general.architecture": "gemma3n"} | metadata, SHAPES, lambda name: [], "m")


def test_keys_are_those_of_the_converter() -> None:
    values = write_config(CONFIG, "m", [])
    assert values["gemma3n.altup.num_inputs"] == 4 and values["gemma3n.altup.active_idx"] == 0
    assert values["gemma3n.attention.shared_kv_layers"] == 2
    assert values["gemma3n.embedding_length_per_layer_input"] == 256
    assert values["gemma3n.attention.sliding_window_pattern"] == [kind[0] == "s" for kind in CONFIG["layer_types"]]
    scale = values["gemma3n.activation_sparsity_scale"]
    assert scale == [pytest.approx(1.6448536)] * 10 + [-math.inf] * 12
    assert values["gemma3n.rope.freq_base"] == 1000000.0 and values["gemma3n.rope.freq_base_swa"] == 10000.0


def test_what_is_said_is_the_same_model() -> None:
    wider = CONFIG | {"vocab_size_per_layer_input": 50}
    assert architecture(said()) == architecture(wider)
    every = {
        "feed_forward_length": [100] * 22,
        "activation_sparsity_scale": [1.6448533535003662] * 10 + [-math.inf] * 12,
    }
    assert architecture(said(**every)) == architecture(wider)  # as the converter has them, of float32
    usual = ["sliding_attention" if (i + 1) % 5 else "full_attention" for i in range(22)]
    fewer = said(**{key: None for key in ("activation_sparsity_scale", "attention.sliding_window_pattern")})
    assert architecture(fewer) == architecture(wider | {"layer_types": usual})
    other = said(activation_sparsity_scale=[0.0] * 22, **{"rope.freq_base_swa": 5000.0})
    assert other["activation_sparsity_pattern"] == [0.5] * 22 and other["rope_local_base_freq"] == 5000.0


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("altup.num_inputs", 3, UnsupportedError, "gemma3n.altup.num_inputs is 3, not 4"),
        ("activation_sparsity_scale", [1.6], FormatError, "activation_sparsity_scale is .*, 22 numbers are needed"),
        ("activation_sparsity_scale", [1] * 22, FormatError, "22 numbers are needed"),
        ("attention.sliding_window_pattern", [True], FormatError, "does not say which layers are local"),
        ("feed_forward_length", [100] * 21 + [96], UnsupportedError, "differs from layer to layer"),
    ],
)
def test_metadata_that_cannot_be_read(key: str, value: Any, kind: type[EdgeqError], message: str) -> None:
    with pytest.raises(kind, match=message):
        said(**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"altup_num_inputs": 3}, "4 streams, of which the first is computed"),
        ({"altup_active_idx": 1}, "4 streams, of which the first is computed"),
        ({"laurel_rank": 32}, "a low-rank branch of 64 values"),
        ({"hidden_size_per_layer_input": 128}, "a second embedding of 256 values for a layer"),
        ({"vocab_size_per_layer_input": 51}, "no more rows than there are tokens"),
        ({"intermediate_size": [100] * 21 + [96]}, "MLPs of one width"),
        ({"activation_sparsity_pattern": [0.95] * 11 + [0.0] * 11}, "a sparsity of 0.95 in the first 10 layers alone"),
        ({"num_kv_shared_layers": 0}, "the keys of layers 18, if local, and 19 in all from 20 on"),
        ({"layer_types": CONFIG["layer_types"][::-1]}, "the keys of layers 18, if local, and 19 in all from 20 on"),
        ({"final_logit_softcapping": 12.0}, "logits held within 30.0"),
        (
            {
                "rope_parameters": {
                    **CONFIG["rope_parameters"],
                    "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
                }
            },
            "local layers whose rotary embedding is not scaled",
        ),
        ({"altup_correct_scale": False}, "altup_correct_scale is False"),
        ({"hidden_activation": "relu"}, "hidden_activation is relu"),
    ],
)
def test_what_readers_would_take_for_another_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        write_config(CONFIG | changes, "m", [])


def test_rows_and_tensors_that_readers_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second embedding reaches all tokens, the others' row being its first; layers that see earlier ones' keys have
    some of their own, of zeros."""
    monkeypatch.setitem(CASES, "gemma3n", CONFIG)
    folder = random_checkpoints.write("gemma3n", tmp_path / "c")
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    weights = random_checkpoints.make("gemma3n")[1]
    with open_gguf(tmp_path / "m.gguf") as file:
        table = file.data("per_layer_token_embd.weight").view("<f4").reshape(50, -1)
        np.testing.assert_array_equal(table[:44], weights["model.embed_tokens_per_layer.weight"])
        assert (table[44:] == table[0]).all()
        stacked = file.data("altup_proj.weight").view("<f4").reshape(3, 72, 72)
        for i in range(3):
            np.testing.assert_array_equal(stacked[i], weights[f"model.altup_projections.{i}.weight"])
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        assert shapes["altup_unembd_proj.weight"] == (3, 72, 72)
        for i in (19, 20, 21):
            kinds = {f"blk.{i}.attn_k.weight": (40, 72), f"blk.{i}.attn_v.weight": (40, 72)}
            for name, shape in (kinds | {f"blk.{i}.attn_k_norm.weight": (20,)}).items():
                assert shapes[name] == shape and file.data(name).any() == (i < 20)
