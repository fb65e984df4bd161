"""Models with eyes or ears: their language model is run; the tensors of their towers stay unused, but for those that
image_tower.py knows."""

from collections.abc import Mapping
from typing import Any

from edgeq.models.config import Config, shown
from edgeq.models.mllama import without_looking
from edgeq.models.wrapped_sizes import OF_TEXT, SIZES, USUAL

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
    "glm4v": "glm4",
    "glm46v": "glm4",
    "glmga": "glm4",
    "glm_ocr": "glm4",
    "glm4v_moe": "glm4_moe",
    "paddleocr_vl": "llama",
    "hunyuan_vl": "hunyuan_v1_dense",
    "granite4_vision": "granite",
    "granite_docling": "granite",
    "emu3": "llama",
    "qwen2_5_omni": "qwen2",
    "qwen2_5_omni_thinker": "qwen2",
    "qwen3_omni_moe": "qwen3_moe",
    "qwen3_omni_moe_thinker": "qwen3_moe",
    "mllama": "llama",
}
# What a text_config calls itself -> what it is
TEXT = {
    "emu3_text_model": "llama",
    "exaone4_5_text": "exaone4",
    "gemma4_unified_text": "gemma4_text",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
    "glm_ocr_text": "glm4",
    "granite4_vision_text": "granite",
    "granite_docling_text": "granite",
    "hunyuan_vl_text": "hunyuan_v1_dense",
    "mllama_text_model": "llama",
    "paddleocr_vl_text": "llama",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_omni_moe_text": "qwen3_moe",
}
# What it calls itself where it does not say so, and it is not the larger model's name and `_text`
UNSAID = {
    "emu3": "emu3_text_model",
    "glm46v": "glm4v_text",
    "glmga": "glm4v_text",
    "mllama": "mllama_text_model",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
}
# Whose heads share the hidden size, unless it is said
EVEN = ("glm4v_text", "glm_ocr_text", "qwen3_omni_moe_text", "qwen3_vl_moe_text")
# Those whose configurations, or first ones, have all in one
FLAT = ("qwen2_vl", "qwen2_5_vl", "phi4_multimodal", "phi4mm")
SHARED = ("mrope", "xdrope")  # what keys of shared rotations begin with
# What names of the text model, and of what sees, may begin with, in files and in memory, of any transformers
PREFIXES = (
    *("model.", "language_model.model.", "model.language_model.", "language_model.", "model.text_model."),
    *("model.language_model.model.", "thinker.model.", "text_model.model.", ""),
)


def of_text(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The configuration of what reads text: of a larger model the one inside."""
    return text_config(Config(config, source)).values if str(config.get("model_type")) in WRAPPED else config


def text_config(config: Config) -> Config:
    """The configuration of the language model inside a larger one. CheckpointError if it has none."""
    outer = str(config.get("model_type"))
    thinks = config.get("thinker_config")  # of one that speaks, too
    text = thinks.get("text_config") if isinstance(thinks, Mapping) else config.get("text_config")
    if text is None and outer in FLAT:
        text = {key: value for key, value in config.values.items() if not key.startswith("vision")}
    if not isinstance(text, Mapping):
        raise config.malformed(f"text_config is {shown(text)}, an object is needed")
    inner = text.get("model_type", WRAPPED[outer])
    inner = WRAPPED[outer] if inner == outer else TEXT.get(str(inner), inner)
    tied = [each["tie_word_embeddings"] for each in (text, config.values) if "tie_word_embeddings" in each]
    name = str(text.get("model_type", UNSAID.get(outer, f"{outer}_text")))
    own = name in TEXT or outer in FLAT  # the class has sizes of its own
    sizes = OF_TEXT.get(name, {}) if own else SIZES.get(str(inner), {})
    values = {**sizes, **USUAL.get(outer, {}), **text, "model_type": inner}
    if outer == "mllama":
        values |= without_looking(config, values)
    if name in EVEN and values.get("head_dim") is None:
        given = config.within(values)
        values["head_dim"] = given.integer("hidden_size") // given.integer("num_attention_heads")
    if tied:  # either place may say so
        values["tie_word_embeddings"] = any(tied)
    return config.within({**values, **_rope(values)})


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Positions of text are the same in time, height and width: what is shared among these is the usual rotation."""
    changed = {}
    for key in ("rope_scaling", "rope_parameters"):
        given = text.get(key)
        if isinstance(given, Mapping) and ("mrope_section" in given or "xdrope_section" in given):
            kind = given.get("rope_type", given.get("type", "default"))
            rest = {name: value for name, value in given.items() if name != "type" and not name.startswith(SHARED)}
            changed[key] = {**rest, "rope_type": {"mrope": "default", "xdrope": "dynamic"}.get(str(kind), kind)}
    return changed
