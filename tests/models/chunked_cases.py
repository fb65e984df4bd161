"""Small configurations of models some of whose layers see chunks, as architecture_cases.py has those of others."""

from typing import Any

_LLAMA4: dict[str, Any] = {
    "model_type": "llama4_text",
    "architectures": ["Llama4ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 72,
    "intermediate_size": 44,
    "intermediate_size_mlp": 100,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "num_local_experts": 5,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 24,
    "floor_scale": 7,
    "attn_scale": 0.3,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CASES: dict[str, dict[str, Any]] = {
    "llama4": _LLAMA4,
    "llama4-large": {
        **_LLAMA4,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "chunked_attention", "chunked_attention"],
        "no_rope_layers": [0, 1, 1],
        "moe_layers": [0, 2],
        "num_experts_per_tok": 2,
        "num_key_value_heads": 1,
        "attention_chunk_size": 17,
        "use_qk_norm": False,
        "attn_temperature_tuning": False,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama4-whole": {
        **{key: value for key, value in _LLAMA4.items() if key not in ("floor_scale", "attn_scale")},
        "attention_chunk_size": 8192,
        "num_hidden_layers": 5,
        "num_local_experts": 3,
    },
}
