"""Small configurations of models that transformers has no class of: what these compute is llama.cpp's."""

from typing import Any

_SMALLTHINKER: dict[str, Any] = {
    "model_type": "smallthinker",
    "architectures": ["SmallThinkerForCausalLM"],
    "hidden_size": 72,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "moe_ffn_hidden_size": 44,
    "moe_num_primary_experts": 7,
    "moe_num_active_primary_experts": 3,
    "moe_primary_router_apply_softmax": False,
    "moe_enable_early_router": True,
    "moe_enable_secondary_experts": False,
    "moe_layer_layout": [1] * 5,
    "rope_layout": [0, 1, 1, 1, 0],
    "sliding_window_layout": [0, 1, 1, 1, 0],
    "sliding_window_size": 4096,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CASES: dict[str, dict[str, Any]] = {
    "smallthinker": _SMALLTHINKER,
    "smallthinker-everywhere": {
        **_SMALLTHINKER,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "head_dim": 32,
        "moe_primary_router_apply_softmax": True,
        "moe_layer_layout": [1] * 3,
        "rope_layout": [1] * 3,
        "sliding_window_layout": [0] * 3,
        "rope_theta": 1500000.0,
        "tie_word_embeddings": False,
    },
}
