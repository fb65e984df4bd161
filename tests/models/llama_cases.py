"""Small configurations of Llama's next of kin, as architecture_cases.py has those of others."""

from typing import Any

_BASE: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_IQUEST = {**_BASE, "model_type": "iquestcoder", "architectures": ["IQuestCoderForCausalLM"], "head_dim": 24}
_HYPERCLOVAX = {
    **_BASE,
    "model_type": "hyperclovax",
    "architectures": ["HyperCLOVAXForCausalLM"],
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.7,
    "logits_scaling": 0.5,
    "use_post_norm": True,
    "attention_bias": False,
    "mlp_bias": False,
}

CASES: dict[str, dict[str, Any]] = {
    "iquest-coder": _IQUEST,
    "hyperclovax": _HYPERCLOVAX,
    "hyperclovax-plain": {
        **_HYPERCLOVAX,
        "hidden_size": 96,
        "num_key_value_heads": 3,
        "embedding_multiplier": 1.0,
        "attention_multiplier": None,
        "residual_multiplier": 1.0,
        "use_post_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
}
