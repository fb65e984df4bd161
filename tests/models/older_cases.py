"""Small configurations of decoders with LayerNorm and MLPs without a gate, as architecture_cases.py has those of
others."""

from typing import Any

_GPT_NEO: dict[str, Any] = {
    "model_type": "gpt_neo",
    "architectures": ["GPTNeoForCausalLM"],
    "activation_function": "gelu_new",
    "hidden_size": 72,
    "intermediate_size": None,
    "num_layers": 4,
    "attention_types": [[["global", "local"], 2]],
    "num_heads": 6,
    "window_size": 24,
    "vocab_size": 48,
    "max_position_embeddings": 96,
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BIOGPT: dict[str, Any] = {
    "model_type": "biogpt",
    "architectures": ["BioGptForCausalLM"],
    "hidden_act": "gelu",
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "vocab_size": 48,
    "max_position_embeddings": 96,
    "scale_embedding": True,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "gpt-neo": _GPT_NEO,
    "gpt-neo-local": {
        **_GPT_NEO,
        "activation_function": "gelu",
        "num_heads": 3,
        "intermediate_size": 100,
        "num_layers": 3,
        "attention_types": [[["local"], 2], [["global"], 1]],
        "window_size": 17,
        "tie_word_embeddings": False,
    },
    "biogpt": _BIOGPT,
    "biogpt-plain": {**_BIOGPT, "hidden_act": "relu", "scale_embedding": False, "tie_word_embeddings": False},
}
