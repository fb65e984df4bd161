"""What a configuration says arrives under every name, and in every place, that transformers saves it in.

tools/make_config_golden.py keeps what that saves of the tests' configurations, and of each changed in one key.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from architecture_cases import CASES
from encoder_cases import ENCODERS

from edgeq.errors import UnsupportedError
from edgeq.models import SUPPORTED, architecture
from edgeq.models.wrapped import WRAPPED

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "configurations.json"
SAVED = json.loads(GOLDEN.read_text())
UNKNOWN = ("minicpm", "bailing_moe", "bailing_moe_v2", "jina_bert_v2", "smallthinker", "rwkv7")  # to transformers
CONFIGS = {case: config for case, config in (CASES | ENCODERS).items() if config["model_type"] not in UNKNOWN}


def after(before: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in before.items() if key not in change["left out"]} | change["saved"]


def test_every_case_is_there() -> None:
    assert SAVED.keys() == CONFIGS.keys(), "run tools/make_config_golden.py"
    assert {CONFIGS[case]["model_type"] for case in SAVED} >= {*SUPPORTED} - WRAPPED.keys() - {*UNKNOWN}


@pytest.mark.parametrize("case", CONFIGS)
def test_every_value_arrives(case: str) -> None:
    config, entry = CONFIGS[case], SAVED[case]
    usual, model = after(config, entry), architecture(config)
    assert architecture(usual) == model
    for key, change in entry["changes"].items():
        expected = architecture({**config, key: change["value"]})
        assert expected != model, key
        assert architecture(after(usual, change)) == expected, key


def test_other_names_of_nemotrons_mamba_layers() -> None:
    """As transformers reads them: they count where both are there."""
    config = CASES["nemotron-h-bias"]
    names = {"n_groups": "mamba_n_groups", "conv_kernel": "mamba_d_conv", "use_conv_bias": "mamba_conv_bias"}
    renamed = {names.get(key, key): value for key, value in config.items()}
    assert renamed != config
    for also in ({}, {"n_groups": 8, "conv_kernel": 3, "use_conv_bias": True}):
        assert architecture({**renamed, **also}) == architecture(config)


@pytest.mark.parametrize("case", ["modernbert", "modernbert-decoder"])
def test_a_scaling_of_modernbert_is_of_all_layers(case: str) -> None:
    """As transformers reads `rope_scaling`, and saves it."""
    config, scaling = CONFIGS[case], {"rope_type": "linear", "factor": 2.5}
    nested = {"full_attention": {"rope_theta": 500.0, **scaling}, "sliding_attention": {"rope_theta": 99.0, **scaling}}
    expected = architecture({**config, "rope_parameters": nested})
    assert (
        architecture(
            {
                **config,
                "rope_parameters": {kind: {"rope_theta": nested[kind]["rope_theta"]} for kind in nested},
                "rope_scaling": scaling,
            }
        )
        == expected
    )
    older = {key: value for key, value in config.items() if key != "rope_parameters"}
    assert (
        architecture({**older, "global_rope_theta": 500.0, "local_rope_theta": 99.0, "rope_scaling": scaling})
        == expected
    )


@pytest.mark.parametrize("case", ["minicpm3", "deepseek-v3"])
def test_rotated_parts_of_latent_attention_are_rotated_whole(case: str) -> None:
    config = {**CONFIGS[case], "rope_scaling": None}
    assert architecture({**config, "partial_rotary_factor": 1.0}) == architecture(config)
    with pytest.raises(UnsupportedError, match="partial_rotary_factor below 1"):
        architecture({**config, "partial_rotary_factor": 0.5})
