"""Small configurations of models whose tokens see all of their text: see architecture_cases."""

from typing import Any

from architecture_cases import CASES

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
FIRST = tuple(ENCODERS)  # whose states tests/golden/states.npz has; those of all below are in encoders.npz
_MODERNBERT = {
    "model_type": "modernbert",
    "architectures": ["ModernBertModel"],
    "hidden_activation": "gelu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 48,
    "max_position_embeddings": 96,
    "norm_eps": 1e-5,
    "local_attention": 16,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
_NOMIC = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 48,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "pad_token_id": 0,
}
_DEBERTA = {
    **{key: value for key, value in _BERT.items() if key != "type_vocab_size"},
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2Model"],
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 16,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
ENCODERS |= {
    "modernbert": _MODERNBERT,
    "modernbert-older": {
        **{key: value for key, value in _MODERNBERT.items() if key not in ("layer_types", "rope_parameters")},
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 80000.0,
        "local_rope_theta": 5000.0,
        "local_attention": 20,
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "hidden_activation": "silu",
        "hidden_size": 72,
        "num_attention_heads": 6,
        "intermediate_size": 100,
    },
    "nomic-bert": _NOMIC,
    "mpnet": {
        **_ROBERTA,
        "model_type": "mpnet",
        "architectures": ["MPNetModel"],
        "layer_norm_eps": 1e-4,
    },
    "camembert": {**_ROBERTA, "model_type": "camembert", "architectures": ["CamembertModel"]},
    "electra": {**_BERT, "model_type": "electra", "architectures": ["ElectraModel"], "embedding_size": 64},
    "electra-narrow": {**_BERT, "model_type": "electra", "architectures": ["ElectraModel"], "embedding_size": 40},
    "deberta-v2": _DEBERTA,
    "deberta-v2-older": {
        **_DEBERTA,
        "hidden_size": 72,
        "num_attention_heads": 6,
        "intermediate_size": 100,
        "position_buckets": -1,
        "max_relative_positions": 24,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "pos_att_type": "c2p|p2c",
        "position_biased_input": True,
        "type_vocab_size": 2,
    },
    "embeddinggemma": {
        **CASES["gemma3"],
        "architectures": ["Gemma3TextModel"],
        "use_bidirectional_attention": True,
        "pad_token_id": 0,
    },
}
# That transformers has no class of: their states are llama.cpp's (tools/make_jina_golden.py)
WITHOUT_CLASS: dict[str, dict[str, Any]] = {
    "jina-bert-v2": {
        **_BERT,
        "architectures": ["JinaBertForMaskedLM"],
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "num_attention_heads": 6,
        "hidden_size": 96,
        "max_position_embeddings": 128,
    },
}
# Those that score texts: the encoder, the decoder, their heads
_RANK = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_THREE = {"id2label": {"0": "good", "1": "bad", "2": "neither"}, "label2id": {"good": 0, "bad": 1, "neither": 2}}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bert-rank": {**_BERT, "architectures": ["BertForSequenceClassification"], **_RANK},
    "bert-classes": {**_BERT, "architectures": ["BertForSequenceClassification"], **_THREE},
    "roberta-rank": {**_ROBERTA, "architectures": ["RobertaForSequenceClassification"], **_RANK},
    "xlm-roberta-classes": {
        **ENCODERS["xlm-roberta"],
        "architectures": ["XLMRobertaForSequenceClassification"],
        **_THREE,
    },
    "distilbert-classes": {
        **ENCODERS["distilbert"],
        "architectures": ["DistilBertForSequenceClassification"],
        **_THREE,
    },
    "modernbert-rank": {
        **_MODERNBERT,
        "architectures": ["ModernBertForSequenceClassification"],
        "classifier_pooling": "mean",
        **_RANK,
    },
    "modernbert-classes": {
        **_MODERNBERT,
        "architectures": ["ModernBertForSequenceClassification"],
        "classifier_pooling": "cls",
        "classifier_bias": True,
        "norm_bias": True,
        "classifier_activation": "silu",
        **_THREE,
    },
    "electra-classes": {
        **ENCODERS["electra-narrow"],
        "architectures": ["ElectraForSequenceClassification"],
        **_THREE,
    },
    "nomic-bert-rank": {**_NOMIC, "architectures": ["NomicBertForSequenceClassification"], **_RANK},
    "deberta-v2-rank": {**_DEBERTA, "architectures": ["DebertaV2ForSequenceClassification"], **_RANK},
    "deberta-v2-classes": {
        **ENCODERS["deberta-v2-older"],
        "architectures": ["DebertaV2ForSequenceClassification"],
        "pooler_hidden_act": "silu",
        **_THREE,
    },
    "qwen3-rank": {**CASES["qwen3"], "architectures": ["Qwen3ForSequenceClassification"], "pad_token_id": 0, **_RANK},
    "llama-classes": {
        **CASES["llama-head-dim"],
        "architectures": ["LlamaForSequenceClassification"],
        "pad_token_id": None,
        **_THREE,
    },
    "gpt2-rank": {**CASES["gpt2"], "architectures": ["GPT2ForSequenceClassification"], "pad_token_id": 0, **_RANK},
}
DECODERS = ("llama", "gemma2", "gpt2", "qwen3-moe", "lfm2")  # of architecture_cases, whose last states are compared too
