"""Rotary scalings in GGUF's metadata, as its readers take them."""

import pytest

from edgeq.errors import UnsupportedError
from edgeq.models import architecture
from edgeq.models.gguf import read_config

METADATA = {"general.architecture": "llama"} | {
    f"llama.{key}": value
    for key, value in {
        "context_length": 64,
        "embedding_length": 64,
        "block_count": 1,
        "feed_forward_length": 64,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }.items()
}


def config(factors: list[float] | None = None, **rope: object) -> dict:
    """`config.json` of a model with these keys after `llama.rope.`; two underscores stand for a dot."""
    shapes = {"token_embd.weight": (48, 64)} | ({"rope_freqs.weight": (8,)} if factors else {})
    keys = {f"llama.rope.{key.replace('__', '.')}": value for key, value in rope.items()}
    return read_config(METADATA | keys, shapes, lambda name: factors or [], "m")


@pytest.mark.parametrize("keys", [{"scaling__factor": 4.0}, {"scale_linear": 4.0}, {"scaling__type": "linear"}])
def test_a_factor_without_a_type_is_linear(keys: dict[str, object]):
    if "scaling__type" in keys:
        keys = {**keys, "scaling__factor": 4.0}
    assert config(**keys)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize("keys", [{"scaling__type": "none", "scaling__factor": 4.0}, {"scaling__factor": 0.0}, {}])
def test_no_scaling(keys: dict[str, object]):
    assert "rope_scaling" not in config(**keys)


def test_divisors_and_a_factor_both_divide():
    plain, divisors = architecture(config()), [1.0 + i / 4 for i in range(8)]
    both = architecture(config(divisors, scaling__factor=2.0))
    expected = [
        frequency / (2.0 * divisor) for frequency, divisor in zip(plain.rope.inverse_frequencies, divisors, strict=True)
    ]
    assert both.rope.inverse_frequencies == pytest.approx(expected, rel=1e-6)
    assert config([1.0] * 8, scaling__factor=2.0)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(UnsupportedError, match=r"m: has rope_freqs\.weight and a yarn scaling"):
        config(divisors, scaling__type="yarn", scaling__factor=2.0)
