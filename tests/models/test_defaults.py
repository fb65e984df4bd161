"""What a configuration leaves out means what it means to transformers, or is asked for.

tools/make_defaults_golden.py keeps what its classes make of configurations that say nothing.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import CheckpointError, EdgeqError
from edgeq.models import SUPPORTED, architecture
from edgeq.models.wrapped import WRAPPED

DEFAULTS = json.loads((Path(__file__).resolve().parents[1] / "golden" / "defaults.json").read_text())
UNKNOWN = {
    "minicpm",
    "bailing_moe",
    "bailing_moe_v2",
    "jina_bert_v2",
    "smallthinker",
    "rwkv7",
    "phi4mm",
}  # to transformers
UNKNOWN |= {"qwen2_5_omni", "qwen3_omni_moe"}  # as their thinkers, which are there
# Sizes that make no model
REFUSED = {"glm4_moe", "glm4v_moe", "deepseek_v2", "falcon_h1", "deberta-v2", "qwen3_omni_moe_thinker"}
# Every file says these: gpt-oss its scaling; whether the head is the embedding; how many experts, as tensors show, too
SAID = {
    ("gpt_oss", "rope_parameters"),
    ("qwen3_vl_moe", "tie_word_embeddings"),
    ("qwen3_vl_moe", "num_local_experts"),
}


def of(name: str, config: dict[str, Any]) -> dict[str, Any]:
    inside = name in WRAPPED and name != "phi4_multimodal"  # which has all in one
    return {"model_type": name, "text_config": config} if inside else {"model_type": name, **config}


def test_every_model_is_there() -> None:
    assert {*DEFAULTS} == {*SUPPORTED} - UNKNOWN, "run tools/make_defaults_golden.py"
    assert {name for name in DEFAULTS if not _is_model(name)} == REFUSED


def _is_model(name: str) -> bool:
    try:
        architecture(of(name, DEFAULTS[name]))
    except EdgeqError:
        return False
    return True


@pytest.mark.parametrize("name", sorted({*DEFAULTS} - REFUSED))
def test_what_is_left_out(name: str) -> None:
    whole = architecture(of(name, DEFAULTS[name]))
    found = 0
    for key in DEFAULTS[name]:
        less = {other: value for other, value in DEFAULTS[name].items() if other != key}
        try:
            same = architecture(of(name, less)) == whole
        except CheckpointError:  # what nothing may stand for
            continue
        assert same or (name, key) in SAID, key
        found += same
    assert found > 5


@pytest.mark.parametrize("name", sorted({*WRAPPED} - UNKNOWN))
def test_a_larger_model_that_says_nothing(name: str) -> None:
    """Sizes are those of the class, or asked for."""
    try:
        found = architecture(of(name, {}))
    except CheckpointError:
        return
    assert found == architecture(of(name, DEFAULTS[name]))
