"""Small configurations of Gemma 4, as architecture_cases.py has those of others."""

from typing import Any

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
# As the smallest ones: one key/value head, a second embedding, the last three layers see earlier ones' keys
_GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "architectures": ["Gemma4ForCausalLM"],
    "hidden_size": 64,
    "hidden_activation": "gelu_pytorch_tanh",
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 24,
    "per_layer_config": {"2": {"head_dim": 32}, "5": {"head_dim": 32}},
    "layer_types": [_LOCAL, _LOCAL, _GLOBAL, _LOCAL, _LOCAL, _GLOBAL],
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "sliding_window": 24,
    "vocab_size": 48,
    "vocab_size_per_layer_input": 50,
    "hidden_size_per_layer_input": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 12.0,
    "attention_k_eq_v": False,
    "attention_bias": False,
    "enable_moe_block": False,
    "tie_word_embeddings": True,
    "rope_parameters": {
        _GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        _LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
    },
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# As the larger ones: values of global layers are their keys
_TWICE = {
    **_GEMMA4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "layer_types": [_LOCAL, _LOCAL, _GLOBAL, _GLOBAL],
    "attention_k_eq_v": True,
    "per_layer_config": {str(i): {"head_dim": 48, "num_key_value_heads": 1} for i in (2, 3)},
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "hidden_size_per_layer_input": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "gemma4": _GEMMA4,
    "gemma4-some-shared": {
        **_GEMMA4,
        "num_kv_shared_layers": 1,
        "per_layer_config": {"1": {"head_dim": 32}, "5": {"head_dim": 32}},
        "layer_types": [_LOCAL, _GLOBAL, _LOCAL, _LOCAL, _LOCAL, _GLOBAL],
        "final_logit_softcapping": None,
        "use_double_wide_mlp": False,
        "attention_bias": True,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "use_bidirectional_attention": "vision",
    },
    "gemma4-keys-twice": _TWICE,
    "gemma4-experts": {
        **_TWICE,
        "enable_moe_block": True,
        "num_experts": 5,
        "top_k_experts": 2,
        "moe_intermediate_size": 40,
        "rope_parameters": {
            _GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.4, "rope_theta": 500000.0, "factor": 2.0},
            _LOCAL: {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
}
