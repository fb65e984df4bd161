"""Llama 3.2 Vision without images: Llama, as layers that look at images are passed over where there are none."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config, shown
from edgeq.models.tensors import Fused

PASSED = "edgeq_passed_layers"  # a key of ours: the numbers of those layers
LOOKING = [3, 8, 13, 18, 23, 28, 33, 38]
FURTHER_TOKENS = 8  # embedded beside the vocabulary: the image's, and none


def without_looking(config: Config, text: Mapping[str, Any]) -> dict[str, Any]:
    """What changes in the text model's configuration. CheckpointError for layers that there are not."""
    looking = text.get("cross_attention_layers")
    looking = LOOKING if looking is None else looking
    layers = config.within(text).integer("num_hidden_layers", most=1000)
    if not isinstance(looking, list) or not all(type(i) is int and 0 <= i < layers for i in looking):
        raise config.malformed(f"cross_attention_layers is {shown(looking)}, a list of layers is needed")
    config.within(text).refuse(tie_word_embeddings=False)
    passed = sorted({*looking})
    return {"num_hidden_layers": layers - len(passed), PASSED: passed}


def language_model(model: Model, config: Config) -> Model:
    """`model`, which is Llama's, of a checkpoint of Llama 3.2 Vision."""
    assert isinstance(model.embedding, Embedding)
    matrix = model.embedding.matrix
    embedding = model.embedding._replace(matrix=matrix._replace(fused=Fused(matrix.rows + FURTHER_TOKENS)))
    return replace(model, embedding=embedding, passed=tuple(config.get(PASSED)))
