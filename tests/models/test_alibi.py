"""Slopes of ALiBi, and what models that have them refuse."""

import pytest
from architecture_cases import CASES

from edgeq.errors import EdgeqError
from edgeq.models import architecture
from edgeq.models.alibi import slopes


def test_slopes_of_a_power_of_two_fall_to_the_smallest():
    assert slopes(8) == tuple(2.0**-i for i in range(1, 9))
    assert slopes(4, 16.0) == (2.0**-4, 2.0**-8, 2.0**-12, 2.0**-16)
    assert slopes(1) == (2.0**-8,)


def test_further_heads_have_slopes_from_between():
    """Every other value of a sequence twice as long."""
    found, longer = slopes(12), slopes(16)
    assert found[:8] == slopes(8)
    assert found[8:] == longer[:8:2]


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm True"),
        ("mpt", {"attn_config": {"alibi": False}}, "alibi False is not supported"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln True is not supported"),
        ("mpt", {"attn_config": [1]}, "attn_config is no object"),
        ("mpt", {"logit_scale": 0.5}, "logit_scale 0.5 is not supported"),
        ("phimoe", {"num_experts_per_tok": 3}, "num_experts_per_tok 3 is not supported"),
        ("phimoe", {"tie_word_embeddings": True}, "lm_head_bias True with tie_word_embeddings True"),
        ("nemotron-h-experts", {"n_group": 4}, "6 experts in 4 groups"),
        ("nemotron-h-experts", {"mlp_hidden_act": "silu"}, "mlp_hidden_act 'silu' is not supported"),
    ],
)
def test_what_is_not_computed_is_refused(case: str, change: dict, message: str):
    with pytest.raises(EdgeqError, match=message):
        architecture(CASES[case] | change)


def test_scales_that_differ_are_refused():
    scaling = CASES["phimoe-longrope"]["rope_scaling"] | {"long_mscale": 1.3}
    with pytest.raises(EdgeqError, match=r"a longrope with scales of 1\.2 and 1\.3 is not supported"):
        architecture(CASES["phimoe-longrope"] | {"rope_scaling": scaling})


def test_the_names_of_the_first_checkpoints():
    bloom = {key: value for key, value in CASES["bloom"].items() if key not in ("n_head", "hidden_size")}
    assert architecture(bloom | {"n_embed": 72, "num_attention_heads": 6}) == architecture(CASES["bloom"])
    names = {"num_hidden_layers": "num_layers", "rms_norm_eps": "layer_norm_epsilon"}
    exaone = {names.get(key, key): value for key, value in CASES["exaone"].items()}
    assert architecture(exaone) == architecture(CASES["exaone"])
