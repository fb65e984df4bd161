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

CASES: dict[str, dict[str, Any]] = {
    "iquest-coder": _IQUEST,
}
