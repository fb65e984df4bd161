"""What models see with, by their configurations."""

from typing import Any

import pytest
from seeing_model import CONFIG

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models import images

SMOLVLM_256M: dict[str, Any] = {
    "model_type": "idefics3",
    "image_token_id": 49190,
    "scale_factor": 4,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49280,
    },
    "vision_config": {
        "model_type": "idefics3_vision",
        "hidden_size": 768,
        "image_size": 512,
        "num_attention_heads": 12,
        "patch_size": 16,
    },
}


def test_smolvlm() -> None:
    found = images(SMOLVLM_256M)
    assert found is not None
    assert (found.patch, found.joined, found.rows, found.token) == (16, 4, 64, 49190)
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    assert shapes["v.patch_embd.weight"] == (768, 768)
    assert shapes["v.position_embd.weight"] == (1024, 768)
    assert shapes["v.blk.11.ffn_up.weight"] == (3072, 768)
    assert shapes["mm.model.fc.weight"] == (576, 12288)
    assert "v.blk.12.ln1.weight" not in shapes
    sources = {part.source for tensor in found.tensors.values() for part in tensor.parts}
    assert "model.vision_model.encoder.layers.3.self_attn.out_proj.bias" in sources
    assert "model.connector.modality_projection.proj.weight" in sources


def test_the_larger_smolvlm() -> None:
    """Whose tiles of 384 pixels are 27 patches of 14, and 6 pixels that are not seen."""
    vision = {**SMOLVLM_256M["vision_config"], "image_size": 384, "patch_size": 14, "num_attention_heads": 16}
    found = images({**SMOLVLM_256M, "scale_factor": 3, "vision_config": vision})
    assert found is not None
    assert (found.joined, found.rows) == (3, 81)
    assert found.tensors["v.position_embd.weight"].shape == (729, 768)


def test_others_see_nothing() -> None:
    assert images({"model_type": "llama"}) is None
    assert images({**SMOLVLM_256M, "model_type": "llava"}) is None


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"num_channels": 4}, UnsupportedError),
        ({"hidden_act": "quick_gelu"}, UnsupportedError),
        ({"patch_size": 10}, UnsupportedError),  # three patches cannot be joined by twos
        ({"patch_size": 32}, UnsupportedError),
        ({"num_attention_heads": 5}, CheckpointError),
        ({"image_size": [32, 32]}, CheckpointError),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        images({**CONFIG, "vision_config": {**CONFIG["vision_config"], **changed}})


@pytest.mark.parametrize("given", ["a", 5, [1], True])
def test_settings_of_the_encoder_are_an_object(given: object) -> None:
    with pytest.raises(CheckpointError, match=r"vision_config is .*, an object is needed"):
        images({**CONFIG, "vision_config": given})
