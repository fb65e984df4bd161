"""Small configurations of models whose tokens see all of their text: see architecture_cases."""

from typing import Any

_BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 48,
    "max_position_embeddings": 70,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = {**_BERT, "model_type": "roberta", "architectures": ["RobertaModel"], "type_vocab_size": 1}
_ROBERTA |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "bert-ragged": {
        **_BERT,
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_attention_heads": 6,
        "hidden_act": "gelu_new",
        "vocab_size": 37,
    },
    "roberta": _ROBERTA,
    "xlm-roberta": {**_ROBERTA, "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]},
    "distilbert": {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "activation": "gelu",
        "dim": 64,
        "hidden_dim": 160,
        "n_layers": 2,
        "n_heads": 4,
        "vocab_size": 48,
        "max_position_embeddings": 70,
        "sinusoidal_pos_embds": False,
        "pad_token_id": 0,
    },
}
DECODERS = ("llama", "gemma2", "gpt2", "qwen3-moe", "lfm2")  # of architecture_cases, whose last states are compared too
