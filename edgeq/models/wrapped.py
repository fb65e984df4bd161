"""Models with eyes or ears: their language model is run; the tensors of their towers stay unused, but for those that
image_tower.py knows."""

from collections.abc import Mapping
from typing import Any

from edgeq.models.config import Config, shown
from edgeq.models.phi3 import ADAPTED

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
    "audioflamingo3": "qwen2",
    "aya_vision": "cohere2",
    "cohere2_vision": "cohere2",
    "deepseek_vl": "llama",
    "deepseek_vl_hybrid": "llama",
    "exaone4_5": "exaone4",
    "fast_vlm": "qwen2",
    "glmasr": "llama",
    "got_ocr2": "qwen2",
    "granite_speech": "granite",
    "granite_speech_plus": "granite",
    "idefics2": "mistral",
    "janus": "llama",
    "lfm3_vl": "lfm3",
    "lighton_ocr": "qwen3",
    "llava_next_video": "llama",
    "minicpm_ocr": "qwen3_5_text",
    "minicpmv4_6": "qwen3_5_text",
    "minicpmv4_7": "qwen3_5_text",
    "musicflamingo": "qwen2",
    "ovis2": "qwen2",
    "perception_lm": "llama",
    "qianfan_ocr": "qwen3",
    "qwen2_audio": "qwen2",
    "qwen3_asr": "qwen3",
    "vibevoice_asr": "qwen2",
    "video_llama_3": "qwen2",
    "video_llava": "llama",
    "vipllava": "llama",
    "voxtral": "llama",
    "embedding_gemma2": "embedding_gemma2_text",
    "llama4": "llama4_text",
    "fuyu": "persimmon",
    "hyperclovax_vision_v2": "hyperclovax",
    "phi4_multimodal": "phi3",
    "phi4mm": "phi3",
}
TEXT = {
    "exaone4_5_text": "exaone4",
    "gemma4_unified_text": "gemma4_text",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
_QWEN_VL = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
}
# Those whose configurations, or first ones, have all in one
FLAT = ("qwen2_vl", "qwen2_5_vl", "phi4_multimodal", "phi4mm")
# What a text_config may leave out, which means something else than in the text model by itself
_PHI4 = {"num_key_value_heads": 8, "vocab_size": 200064, "max_position_embeddings": 131072}
USUAL: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": {"max_position_embeddings": 128000, "rope_theta": 500000.0},
    "qwen3_vl_moe": {
        "num_key_value_heads": 16,
        "max_position_embeddings": 128000,
        "rope_theta": 500000.0,
        "num_experts_per_tok": 4,
    },
    "phi4_multimodal": _PHI4,
    "phi4mm": {**_PHI4, ADAPTED: True},
    "gemma4_unified": {"max_position_embeddings": 262144, "hidden_size_per_layer_input": 0, "sliding_window": 1024},
    "glmasr": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 59264,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
    },
    "voxtral": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131072,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000000.0,
    },
}
# What a text_config means that leaves sizes out, as the classes of transformers have them
_WIDE = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_QWEN = {
    **_WIDE,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
}
SIZES: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_WIDE, "intermediate_size": 11008, "vocab_size": 32000},
    "granite": {**_WIDE, "intermediate_size": 11008, "vocab_size": 32000},
    "persimmon": {
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "vocab_size": 262144,
    },
    "hyperclovax": {**_WIDE, "intermediate_size": 11008, "vocab_size": 32000},
    "mistral": {
        **_WIDE,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "exaone4": {**_WIDE, "intermediate_size": 16384, "num_key_value_heads": 32, "vocab_size": 102400},
    "llama4_text": {
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "vocab_size": 202048,
    },
    "cohere2": {
        "hidden_size": 8192,
        "intermediate_size": 22528,
        "num_hidden_layers": 40,
        "num_attention_heads": 64,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
}
# What names of the text model, and of what sees, may begin with, in files and in memory, of any transformers
PREFIXES = (
    *("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model."),
    *("model.language_model.model.", ""),
)


def of_text(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The configuration of what reads text: of a larger model the one inside."""
    return text_config(Config(config, source)).values if config.get("model_type") in WRAPPED else config


def text_config(config: Config) -> Config:
    """The configuration of the language model inside a larger one. CheckpointError if it has none."""
    outer = str(config.get("model_type"))
    text = config.get("text_config")
    if text is None and outer in FLAT:
        text = {key: value for key, value in config.values.items() if not key.startswith("vision")}
    if not isinstance(text, Mapping):
        raise config.malformed(f"text_config is {shown(text)}, an object is needed")
    inner = text.get("model_type", WRAPPED[outer])
    inner = WRAPPED[outer] if inner == outer else TEXT.get(inner, inner)
    tied = [each["tie_word_embeddings"] for each in (text, config.values) if "tie_word_embeddings" in each]
    own = f"{outer}_text" in TEXT or "text_config" not in config  # the class has sizes of its own
    sizes = {} if own else SIZES.get(str(inner), {})
    values = {**sizes, **USUAL.get(outer, {}), **text, "model_type": inner}
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
