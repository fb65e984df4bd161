"""Small configurations, one per architectural feature: what random_checkpoints makes checkpoints of."""

from typing import Any

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MISTRAL = {**_LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
_QWEN2 = {
    **_LLAMA,
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
}
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.5, 4.0, 8.0, 16.0],
}
_QWEN3 = {**_LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True}
_GEMMA = {
    **_LLAMA,
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "tie_word_embeddings": True,
    "head_dim": 24,
    "hidden_act": "gelu",
    "hidden_activation": None,
}
_GEMMA2 = {
    **_GEMMA,
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 3,
    "query_pre_attn_scalar": 20,
    "sliding_window": 24,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 12.0,
}
_GEMMA3 = {
    **_GEMMA2,
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "sliding_window_pattern": 3,
    "num_hidden_layers": 4,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 5000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
_PHI3 = {
    **_LLAMA,
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "pad_token_id": 0,
    "original_max_position_embeddings": 128,
}
_SMOLLM3 = {
    **_LLAMA,
    "model_type": "smollm3",
    "architectures": ["SmolLM3ForCausalLM"],
    "num_hidden_layers": 4,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
_OLMO2 = {**_LLAMA, "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "pad_token_id": 0}
_GRANITE = {
    **_LLAMA,
    "model_type": "granite",
    "architectures": ["GraniteForCausalLM"],
    "tie_word_embeddings": True,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.7,
    "logits_scaling": 0.5,
}
_STABLELM = {
    **_LLAMA,
    "model_type": "stablelm",
    "architectures": ["StableLmForCausalLM"],
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.25,
    "use_qkv_bias": True,
    "pad_token_id": 0,
}
_STARCODER2 = {
    **_LLAMA,
    "model_type": "starcoder2",
    "architectures": ["Starcoder2ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "sliding_window": 24,
    "use_bias": True,
}
_PHI = {
    **_LLAMA,
    "model_type": "phi",
    "architectures": ["PhiForCausalLM"],
    "hidden_act": "gelu_new",
    "partial_rotary_factor": 0.5,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,
}
_GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "activation_function": "gelu_new",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 70,
    "n_inner": None,
    "vocab_size": 48,
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT_NEOX = {
    **_LLAMA,
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
    "attention_bias": True,
    "rotary_pct": 0.25,
    "rotary_emb_base": 8000,
    "layer_norm_eps": 1e-5,
}
del _GPT_NEOX["rope_theta"]
_FALCON = {
    "model_type": "falcon",
    "architectures": ["FalconForCausalLM"],
    "hidden_size": 80,
    "num_attention_heads": 5,
    "num_hidden_layers": 2,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "layer_norm_epsilon": 1e-5,
    "multi_query": True,
    "parallel_attn": True,
    "new_decoder_architecture": False,
    "bias": False,
    "alibi": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BITNET = {
    **_LLAMA,
    "model_type": "bitnet",
    "architectures": ["BitNetForCausalLM"],
    "hidden_act": "relu2",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-12,
}

_ERNIE = {
    **_LLAMA,
    "model_type": "ernie4_5",
    "architectures": ["Ernie4_5ForCausalLM"],
    "head_dim": 16,
    "tie_word_embeddings": True,
}
_LFM2 = {
    "model_type": "lfm2",
    "architectures": ["Lfm2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 150,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "conv_L_cache": 3,
    "conv_bias": False,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 32,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MIXTRAL = {
    **_LLAMA,
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
_OLMOE = {
    **_LLAMA,
    "model_type": "olmoe",
    "architectures": ["OlmoeForCausalLM"],
    "intermediate_size": 96,
    "num_experts": 20,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
}
_QWEN3_MOE = {
    **_QWEN3,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 24,
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
_QWEN2_MOE = {
    **_LLAMA,
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "num_experts": 7,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 96,
    "norm_topk_prob": False,
    "mlp_bias": False,
}

_GPT_OSS = {
    **_LLAMA,
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "head_dim": 24,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 24,
    "attention_bias": True,
    "swiglu_limit": 1.5,
    "rope_theta": 150000.0,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 64,
    },
}

_COHERE = {
    **_LLAMA,
    "model_type": "cohere",
    "architectures": ["CohereForCausalLM"],
    "layer_norm_eps": 1e-4,
    "tie_word_embeddings": True,
    "logit_scale": 0.7,
    "hidden_size": 112,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
_COHERE2 = {
    **_COHERE,
    "model_type": "cohere2",
    "architectures": ["Cohere2ForCausalLM"],
    "sliding_window": 24,
    "sliding_window_pattern": 4,
    "num_hidden_layers": 4,
}
_GLM = {
    **_LLAMA,
    "model_type": "glm",
    "architectures": ["GlmForCausalLM"],
    "hidden_size": 72,
    "num_attention_heads": 6,
    "head_dim": 20,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "pad_token_id": 0,
}
_GLM4 = {**_GLM, "model_type": "glm4", "architectures": ["Glm4ForCausalLM"]}
_EXAONE4 = {
    **_LLAMA,
    "model_type": "exaone4",
    "architectures": ["Exaone4ForCausalLM"],
    "hidden_size": 80,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "sliding_window": 24,
    "sliding_window_pattern": 4,
    "num_hidden_layers": 4,
}
_OLMO3 = {
    **_LLAMA,
    "model_type": "olmo3",
    "architectures": ["Olmo3ForCausalLM"],
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "rope_theta": 500000.0,
    "pad_token_id": 0,
    "rope_scaling": {**_YARN, "beta_fast": 8.0, "beta_slow": 1.0, "attention_factor": 1.2},
}
_GRANITE_HYBRID = {
    **_GRANITE,
    "model_type": "granitemoehybrid",
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "layer_types": ["attention", "attention"],
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "shared_intermediate_size": 172,
    "position_embedding_type": "rope",
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
}
_GRANITE_SWA = {
    **_GRANITE,
    "model_type": "granite_swa",
    "architectures": ["GraniteSWAForCausalLM"],
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "layer_rope_theta": [0, 10000.0, 10000.0, 500000.0],
}
_MELLUM = {
    **_QWEN3_MOE,
    "model_type": "mellum",
    "architectures": ["MellumForCausalLM"],
    "num_hidden_layers": 3,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_parameters": {
        "full_attention": {**_YARN, "rope_theta": 500000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
    },
}
del _MELLUM["rope_theta"]
_SEED_OSS = {
    **_LLAMA,
    "model_type": "seed_oss",
    "architectures": ["SeedOssForCausalLM"],
    "head_dim": 24,
    "attention_bias": True,
}
_NEMOTRON = {
    **_LLAMA,
    "model_type": "nemotron",
    "architectures": ["NemotronForCausalLM"],
    "hidden_act": "relu2",
    "norm_eps": 1e-4,
    "partial_rotary_factor": 0.5,
}
_ARCEE = {**_LLAMA, "model_type": "arcee", "architectures": ["ArceeForCausalLM"], "hidden_act": "relu2"}
_HELIUM = {**_LLAMA, "model_type": "helium", "architectures": ["HeliumForCausalLM"], "head_dim": 16, "pad_token_id": 0}
_INTERNLM3 = {
    **{key: value for key, value in _LLAMA.items() if key not in ("attention_bias", "mlp_bias")},
    "model_type": "internlm3",
    "architectures": ["InternLM3ForCausalLM"],
    "head_dim": 24,
    "pad_token_id": 0,
}

_HUNYUAN = {
    **_LLAMA,
    "model_type": "hunyuan_v1_dense",
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "head_dim": 24,
    "pad_token_id": 0,
    "rope_scaling": {"rope_type": "dynamic", "alpha": 100.0, "factor": 1.0},
}
_NANOCHAT = {
    **_LLAMA,
    "model_type": "nanochat",
    "architectures": ["NanoChatForCausalLM"],
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-4,
    "final_logit_softcapping": 3.0,
}
_MINISTRAL3 = {
    **_LLAMA,
    "model_type": "ministral3",
    "architectures": ["Ministral3ForCausalLM"],
    "head_dim": 24,
    "sliding_window": None,
    "rope_parameters": {
        **_YARN,
        "rope_theta": 500000.0,
        "original_max_position_embeddings": 16,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.3,
    },
}
del _MINISTRAL3["rope_theta"]
_APERTUS = {
    **_LLAMA,
    "model_type": "apertus",
    "architectures": ["ApertusForCausalLM"],
    "hidden_act": "xielu",
    "rope_scaling": _LLAMA3_SCALING,
    "pad_token_id": 0,
}

CASES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "llama-bias": {**_LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama-head-dim": {**_LLAMA, "head_dim": 40, "hidden_size": 96, "vocab_size": 37, "rope_theta": 500000.0},
    "llama-one-kv-head-of-7": {**_LLAMA, "hidden_size": 112, "num_attention_heads": 7, "num_key_value_heads": 1},
    "llama-ragged": {**_LLAMA, "hidden_size": 72, "intermediate_size": 172, "num_attention_heads": 6, "vocab_size": 37},
    "llama-rope-linear": {**_LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-rope-llama3": {**_LLAMA, "rope_scaling": _LLAMA3_SCALING},
    "mistral-window": {**_MISTRAL, "sliding_window": 24},
    "mistral-no-window": {**_MISTRAL, "sliding_window": None},
    "qwen2": _QWEN2,
    "qwen2-window-from-layer-1": {
        **_QWEN2,
        "use_sliding_window": True,
        "sliding_window": 24,
        "max_window_layers": 1,
        "num_hidden_layers": 3,
    },
    "llama-rope-dynamic": {**_LLAMA, "rope_scaling": _DYNAMIC},
    "llama-rope-dynamic-beyond": {**_LLAMA, "rope_scaling": _DYNAMIC, "max_position_embeddings": 32},
    "llama-rope-yarn": {**_LLAMA, "rope_scaling": {**_YARN, "beta_fast": 8.0}},
    "llama-rope-yarn-mscale": {
        **_LLAMA,
        "rope_scaling": {**_YARN, "mscale": 0.8, "mscale_all_dim": 0.4, "truncate": False},
    },
    "qwen3": {**_QWEN3, "head_dim": 40, "hidden_size": 96},
    "qwen3-bias": {**_QWEN3, "head_dim": 32, "attention_bias": True, "tie_word_embeddings": False},
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3-rope-by-layer": {
        **{key: value for key, value in _GEMMA3.items() if "rope" not in key and key != "sliding_window_pattern"},
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
        },
    },
    "phi3": {**_PHI3, "sliding_window": 24},
    "phi3-longrope-short": {**_PHI3, "partial_rotary_factor": 0.75, "rope_scaling": _LONGROPE},
    "phi3-longrope-long": {
        **_PHI3,
        "partial_rotary_factor": 0.75,
        "rope_scaling": _LONGROPE,
        "original_max_position_embeddings": 32,
    },
    "smollm3": _SMOLLM3,
    "smollm3-window": {
        **_SMOLLM3,
        "no_rope_layers": [0, 1, 1, 0],
        "use_sliding_window": True,
        "sliding_window": 24,
    },
    "olmo2": _OLMO2,
    "olmo2-ragged": {**_OLMO2, "hidden_size": 72, "intermediate_size": 172, "num_attention_heads": 6},
    "granite": _GRANITE,
    "stablelm": _STABLELM,
    "stablelm-parallel": {**_STABLELM, "use_parallel_residual": True, "use_qkv_bias": False, "hidden_size": 96},
    "starcoder2": _STARCODER2,
    "phi": _PHI,
    "gpt2": _GPT2,
    "gpt2-ragged": {**_GPT2, "n_embd": 72, "n_inner": 100},
    "gpt-neox": _GPT_NEOX,
    "gpt-neox-sequential": {**_GPT_NEOX, "use_parallel_residual": False, "attention_bias": False},
    "falcon": _FALCON,
    "falcon-newer": {
        **_FALCON,
        "new_decoder_architecture": True,
        "num_attention_heads": 10,
        "num_kv_heads": 2,
        "bias": True,
    },
    "falcon-sequential": {**_FALCON, "multi_query": False, "parallel_attn": False, "tie_word_embeddings": False},
    "bitnet": _BITNET,
    "ernie4-5": _ERNIE,
    "ernie4-5-bias": {**_ERNIE, "use_bias": True, "head_dim": 24, "tie_word_embeddings": False},
    "lfm2": _LFM2,
    "lfm2-bias": {**_LFM2, "conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": False},
    "mixtral": _MIXTRAL,
    "olmoe": _OLMOE,
    "granitemoe": {
        **_GRANITE,
        "model_type": "granitemoe",
        "architectures": ["GraniteMoeForCausalLM"],
        "intermediate_size": 96,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
    },
    "qwen3-moe": _QWEN3_MOE,
    "qwen3-moe-some-dense": {**_QWEN3_MOE, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "gpt-oss": _GPT_OSS,
    "gpt-oss-no-window": {**_GPT_OSS, "intermediate_size": 64, "layer_types": ["full_attention"] * 3},
    "qwen2-moe": _QWEN2_MOE,
    "cohere": _COHERE,
    "cohere-bias": {**_COHERE, "attention_bias": True, "tie_word_embeddings": False},
    "cohere2": _COHERE2,
    "glm": _GLM,
    "glm-no-bias": {**_GLM, "attention_bias": False, "tie_word_embeddings": True, "hidden_act": "gelu"},
    "glm4": _GLM4,
    "exaone4": _EXAONE4,
    "exaone4-no-window": {**_EXAONE4, "sliding_window": None, "layer_types": ["full_attention"] * 4},
    "olmo3": _OLMO3,
    "olmo3-no-scaling": {**_OLMO3, "rope_scaling": None, "num_hidden_layers": 3, "attention_bias": True},
    "granite-4": _GRANITE_HYBRID,
    "granite-4-no-rope": {**_GRANITE_HYBRID, "position_embedding_type": "nope", "tie_word_embeddings": False},
    "granite-4-experts": {**_GRANITE_HYBRID, "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 40},
    "granite-swa": _GRANITE_SWA,
    "granitemoe-swa": {
        **_GRANITE_SWA,
        "model_type": "granitemoe_swa",
        "architectures": ["GraniteMoeSWAForCausalLM"],
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "intermediate_size": 40,
        "shared_intermediate_size": 72,
        "layer_rope_theta": None,
    },
    "mellum": _MELLUM,
    "seed-oss": _SEED_OSS,
    "seed-oss-bias": {**_SEED_OSS, "attention_bias": False, "attention_out_bias": True, "mlp_bias": True},
    "nemotron": _NEMOTRON,
    "nemotron-bias": {**_NEMOTRON, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    "arcee": _ARCEE,
    "arcee-bias": {**_ARCEE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "helium": _HELIUM,
    "hunyuan": _HUNYUAN,
    "hunyuan-bias": {**_HUNYUAN, "attention_bias": True, "rope_scaling": None, "tie_word_embeddings": True},
    "apertus": _APERTUS,
    "apertus-bias": {**_APERTUS, "attention_bias": True, "hidden_act": "relu2", "tie_word_embeddings": True},
    "nanochat": _NANOCHAT,
    "ministral3": _MINISTRAL3,
    "internlm3": _INTERNLM3,
    "internlm3-bias": {**_INTERNLM3, "qkv_bias": True, "bias": True, "rope_scaling": _DYNAMIC},
    "qwen2-moe-ragged": {**_QWEN2_MOE, "hidden_size": 72, "moe_intermediate_size": 44, "num_attention_heads": 6},
}
