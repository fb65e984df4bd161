"""Models with eyes or ears: their language model is run; the tensors of their towers stay unused, but for those that
image_tower.py knows."""

from collections.abc import Mapping
from typing import Any

from edgeq.models.config import Config, shown

# Of a larger model -> what its text_config is where that does not say so, or says it under a name of its own
WRAPPED = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "internvl": "qwen2",
    "idefics3": "llama",
    "smolvlm": "llama",
    "lfm2_vl": "lfm2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
TEXT = {
    "gemma4_unified_text": "gemma4_text",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
# What a text_config may leave out, which means something else than in the text model by itself
USUAL: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "gemma4_unified": {"hidden_size_per_layer_input": 0, "sliding_window": 1024},
}
# What names of the text model, and of what sees, may begin with, in files and in memory, of any transformers
PREFIXES = ("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model.", "")


def text_config(config: Config) -> Config:
    """The configuration of the language model inside a larger one. CheckpointError if it has none."""
    outer = str(config.get("model_type"))
    text = config.get("text_config")
    if text is None and outer in ("qwen2_vl", "qwen2_5_vl"):  # whose first checkpoints have all in one
        text = {key: value for key, value in config.values.items() if not key.startswith("vision")}
    if not isinstance(text, Mapping):
        raise config.malformed(f"text_config is {shown(text)}, an object is needed")
    inner = text.get("model_type", WRAPPED[outer])
    inner = WRAPPED[outer] if inner == outer else TEXT.get(inner, inner)
    tied = [each["tie_word_embeddings"] for each in (text, config.values) if "tie_word_embeddings" in each]
    values = {**USUAL.get(outer, {}), **text, "model_type": inner}
    if tied:  # either place may say so
        values["tie_word_embeddings"] = any(tied)
    return config.within({**values, **_rope(values)})


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Positions of text are the same in time, height and width: what Qwen shares among these is the usual rotation."""
    changed = {}
    for key in ("rope_scaling", "rope_parameters"):
        given = text.get(key)
        if isinstance(given, Mapping) and "mrope_section" in given:
            kind = given.get("rope_type", given.get("type", "default"))
            rest = {name: value for name, value in given.items() if not name.startswith("mrope") and name != "type"}
            changed[key] = {**rest, "rope_type": "default" if kind == "mrope" else kind}
    return changed
