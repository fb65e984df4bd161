"""What a configuration says arrives under every name, and in every place, that transformers saves it in.

tools/make_config_golden.py keeps what that saves of the tests' configurations, and of each changed in one key.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from architecture_cases import CASES
from encoder_cases import ENCODERS

from edgeq.models import SUPPORTED, architecture
from edgeq.models.wrapped import WRAPPED

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "configurations.json"
SAVED = json.loads(GOLDEN.read_text())
UNKNOWN = ("minicpm", "bailing_moe", "bailing_moe_v2", "jina_bert_v2")  # to transformers
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
