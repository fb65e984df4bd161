"""The sampling that a model's own files ask for."""

import json
from typing import Any

import pytest

from edgeq.decode.sampling_defaults import sampling_defaults
from edgeq.errors import TokenizerError
from edgeq.gguf.sampling import sampling_assets, sampling_metadata


def said(**config: Any) -> dict[str, float | int]:
    return sampling_defaults({"generation_config.json": json.dumps(config).encode()})


EVERY = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.05}


def test_what_is_said_is_taken():
    assert said(**EVERY, max_length=4096, eos_token_id=[1, 2]) == EVERY
    assert said(**EVERY, do_sample=True) == EVERY
    assert said(temperature=1, top_k=50.0) == {"temperature": 1.0, "top_k": 50}
    assert said() == {} and sampling_defaults({}) == {}


def test_a_model_that_asks_for_greedy_decoding():
    assert said(do_sample=False) == {"temperature": 0.0}
    assert said(**EVERY, do_sample=False) == {"temperature": 0.0, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    "value",
    [{key: value} for key in EVERY for value in (None, "0.7", True, [], -0.5, float("nan"), float("inf"), 10**400)]
    + [{"top_p": 0}, {"top_p": 1.5}, {"min_p": 2}, {"repetition_penalty": 0}, {"top_k": 1.5}, {"top_k": -2}],
)
def test_what_cannot_work_is_left_out(value: dict[str, Any]):
    assert said(**value) == {}


def test_all_tokens():
    assert said(top_k=-1) == said(top_k=0) == {"top_k": 0}


def test_a_file_that_is_no_object():
    with pytest.raises(TokenizerError, match=r"generation_config\.json holds a list"):
        sampling_defaults({"generation_config.json": b"[]"})


def test_of_gguf_and_back():
    f32 = {"temp": 0.699999988079071, "top_k": 20, "top_p": 0.800000011920929, "min_p": 0.10000000149011612}
    metadata = {
        f"general.sampling.{key}": value for key, value in {**f32, "penalty_repeat": 1.0499999523162842}.items()
    }
    ends = {"generation_config.json": b'{"eos_token_id": [2]}'}
    assets = sampling_assets(metadata | {"general.sampling.mirostat": 0}, ends)
    assert json.loads(assets["generation_config.json"]) == {"eos_token_id": [2]} | EVERY
    assert sampling_metadata(assets) == {
        "general.sampling.temp": 0.7,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.8,
        "general.sampling.min_p": 0.1,
        "general.sampling.penalty_repeat": 1.05,
    }
    assert sampling_assets({"general.sampling.temp": "hot"}, ends) == sampling_assets({}, ends) == {}
    greedy = {"generation_config.json": b'{"do_sample": false}'}
    assert sampling_metadata(greedy) == {"general.sampling.temp": 0.0}
