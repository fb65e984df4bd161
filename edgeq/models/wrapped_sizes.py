"""What the configuration of a language model inside a larger one means where it leaves something out."""

from collections.abc import Mapping
from typing import Any

from edgeq.models.phi3 import ADAPTED

# What a text_config may leave out, which means something else than in the text model by itself
_QWEN_VL = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
}
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
        "norm_topk_prob": True,
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
# What a text_config means that leaves sizes out, of a model by itself, as the classes of transformers have them
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
# The same of those that have a name of their own there
_LONG = {"max_position_embeddings": 32768}
_FINE = {"rms_norm_eps": 1e-5}
_GLM = {**_FINE, "partial_rotary_factor": 1.0}
OF_TEXT: Mapping[str, Mapping[str, Any]] = {
    "emu3_text_model": {
        **_WIDE,
        **_FINE,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "vocab_size": 184622,
        "max_position_embeddings": 9216,
        "rope_theta": 1000000.0,
    },
    "glm4v_text": {
        **_WIDE,
        **_GLM,
        **_LONG,
        "intermediate_size": 13696,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "vocab_size": 151552,
    },
    "glm_ocr_text": {
        **_GLM,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 59392,
        "max_position_embeddings": 131072,
        "attention_bias": False,
    },
    "glm4v_moe_text": {
        **_FINE,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "vocab_size": 151424,
        "max_position_embeddings": 65536,
        "attention_bias": True,
    },
    "granite4_vision_text": {**_WIDE, "intermediate_size": 11008, "vocab_size": 32000},
    "granite_docling_text": {
        **_FINE,
        **_LONG,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 133800,
        "embedding_multiplier": 12.0,
        "logits_scaling": 4.0,
        "residual_multiplier": 0.263,
        "attention_multiplier": 0.015625,
        "tie_word_embeddings": True,
    },
    "hunyuan_vl_text": {
        **_WIDE,
        "intermediate_size": 11008,
        "vocab_size": 290943,
        "tie_word_embeddings": True,
    },
    "mllama_text_model": {
        **_WIDE,
        **_FINE,
        "intermediate_size": 14336,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
    },
    "paddleocr_vl_text": {
        **_FINE,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "vocab_size": 103424,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "qwen2_5_omni_text": {
        **_LONG,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3_omni_moe_text": {
        **_LONG,
        "hidden_size": 2048,
        "intermediate_size": 18944,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 3584,
        "norm_topk_prob": True,
        "rope_theta": 1000000.0,
    },
}
