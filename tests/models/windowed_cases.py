"""Small configurations of models some of whose layers are local, as architecture_cases.py has those of others."""

from typing import Any

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_BASE: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "sliding_window": 24,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MINISTRAL = {
    **_BASE,
    "model_type": "ministral",
    "architectures": ["MinistralForCausalLM"],
    "layer_types": [_GLOBAL, _LOCAL, _LOCAL, _GLOBAL],
}
_CWM = {
    **{key: value for key, value in _BASE.items() if key != "rope_theta"},
    "model_type": "cwm",
    "architectures": ["CwmForCausalLM"],
    "num_hidden_layers": 5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
_VAULTGEMMA = {
    **{key: value for key, value in _BASE.items() if key != "hidden_act"},
    "model_type": "vaultgemma",
    "architectures": ["VaultGemmaForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 3,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 12.0,
    "attention_bias": False,
    "tie_word_embeddings": True,
}

CASES: dict[str, dict[str, Any]] = {
    "ministral": _MINISTRAL,
    "ministral-local": {
        **{key: value for key, value in _MINISTRAL.items() if key != "layer_types"},
        "head_dim": 12,
        "hidden_act": "gelu",
        "sliding_window": 17,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "cwm": _CWM,
    "cwm-bias": {
        **_CWM,
        "layer_types": [_LOCAL, _GLOBAL, _LOCAL],
        "num_hidden_layers": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "head_dim": 12,
        "sliding_window": 17,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
    },
    "vaultgemma": _VAULTGEMMA,
    "vaultgemma-uncapped": {
        **_VAULTGEMMA,
        "layer_types": [_GLOBAL, _LOCAL, _LOCAL],
        "sliding_window": 17,
        "query_pre_attn_scalar": 31,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "attention_bias": True,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
}
