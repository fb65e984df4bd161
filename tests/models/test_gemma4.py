"""Gemma 4: whose keys its last layers see, what is refused, what counts as its memory."""

from types import SimpleNamespace
from typing import Any

import pytest
from gemma_cases import CASES

from edgeq.errors import CheckpointError, EdgeqError, UnsupportedError
from edgeq.models import architecture
from edgeq.models.composition import Model
from edgeq.models.mixers import Attention
from edgeq.ops import Graph
from edgeq.runtime.fit import resident

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def model(**changes: Any) -> Model:
    found = architecture({**CASES["gemma4"], **changes})
    assert isinstance(found, Model)
    return found


def test_the_last_layers_see_the_last_of_their_kind() -> None:
    mixers = [layer.mixer for layer in model().layers]
    assert [mixer.reads for mixer in mixers if isinstance(mixer, Attention)] == [None, None, None, 1, 1, 2]
    names = model().tensors
    assert "blk.2.attn_k.weight" in names and "blk.3.attn_k.weight" not in names
    assert names["blk.3.ffn_up.weight"].shape[0] == 2 * names["blk.2.ffn_up.weight"].shape[0]


def test_older_configurations_have_keys_for_global_layers() -> None:
    older = {**CASES["gemma4-keys-twice"], "global_head_dim": 48, "num_global_key_value_heads": 1}
    del older["per_layer_config"]
    assert architecture(older) == architecture(CASES["gemma4-keys-twice"])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"num_kv_shared_layers": 6}, CheckpointError, "num_kv_shared_layers is 6, there are 6 layers"),
        ({"layer_types": [LOCAL] * 5 + [GLOBAL]}, CheckpointError, "layer 5 sees the keys of an earlier one"),
        ({"hidden_size_per_layer_input": 40}, UnsupportedError, "a multiple of 32 is needed"),
        ({"vocab_size_per_layer_input": 40}, CheckpointError, "vocab_size_per_layer_input is 40, there are 48 tokens"),
        ({"per_layer_config": {"2": {"sliding_window": 3}}}, UnsupportedError, "per_layer_config of layer 2 is"),
        ({"use_bidirectional_attention": "all"}, UnsupportedError, "use_bidirectional_attention 'all'"),
    ],
)
def test_what_it_cannot_be_is_refused(changes: dict[str, Any], kind: type[EdgeqError], message: str) -> None:
    with pytest.raises(kind, match=message):
        model(**changes)


@pytest.mark.parametrize(("case", "alone"), [("gemma4", False), ("gemma4-keys-twice", True), ("gemma4-experts", False)])
def test_layers_that_need_others_are_not_run_alone(case: str, alone: bool) -> None:
    found = architecture(CASES[case])
    graph = Graph({name: tensor.shape for name, tensor in found.tensors.items()})
    if alone:
        assert found.graph(graph, range(1, 2)).width == 64
    else:
        with pytest.raises(UnsupportedError, match="cannot be run one by one: quantize without calibration"):
            found.graph(graph, range(1, 2))


def test_the_second_embedding_is_no_memory() -> None:
    tensors = {
        "token_embd.weight": SimpleNamespace(nbytes=10),
        "per_layer_token_embd.weight": SimpleNamespace(nbytes=70),
    }
    assert resident(SimpleNamespace(nbytes=100, tensors=tensors)) == 30
