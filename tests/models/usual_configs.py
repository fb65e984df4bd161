"""Small configurations of families, of which those of architecture_cases are made."""

from typing import Any

LLAMA: dict[str, Any] = {
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
MISTRAL = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
QWEN2 = {
    **LLAMA,
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
}
NEMOTRON_H: dict[str, Any] = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "mlp_hidden_act": "relu2",
    "mlp_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "mamba_num_heads": 6,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 32,
    "conv_kernel": 4,
    "chunk_size": 16,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FALCON_H1: dict[str, Any] = {
    "model_type": "falcon_h1",
    "architectures": ["FalconH1ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 32,
    "mamba_d_conv": 4,
    "mamba_chunk_size": 16,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "mamba_norm_before_gate": True,
    "mamba_rms_norm": False,
    "projectors_bias": False,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "embedding_multiplier": 1.5,
    "lm_head_multiplier": 0.75,
    "key_multiplier": 0.5,
    "attention_in_multiplier": 0.75,
    "attention_out_multiplier": 0.875,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.625,
    "mlp_multipliers": [0.875, 0.75],
    "ssm_multipliers": [0.75, 1.25, 0.5, 0.875, 1.125],
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN3_5: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "architectures": ["Qwen3_5ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
    "attention_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN3_5_MOE = {
    **{key: value for key, value in QWEN3_5.items() if key != "intermediate_size"},
    "model_type": "qwen3_5_moe_text",
    "architectures": ["Qwen3_5MoeForCausalLM"],
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 64,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_hidden_layers": 3,
}
QWEN3_NEXT = {
    **QWEN3_5_MOE,
    "model_type": "qwen3_next",
    "architectures": ["Qwen3NextForCausalLM"],
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [2],
    "norm_topk_prob": True,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.5, 4.0, 8.0, 16.0],
}
QWEN3 = {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True}
GEMMA = {
    **LLAMA,
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "tie_word_embeddings": True,
    "head_dim": 24,
    "hidden_act": "gelu",
    "hidden_activation": None,
}
GEMMA2 = {
    **GEMMA,
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 3,
    "query_pre_attn_scalar": 20,
    "sliding_window": 24,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 12.0,
}
GEMMA3 = {
    **GEMMA2,
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
PHI3 = {
    **LLAMA,
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "pad_token_id": 0,
    "original_max_position_embeddings": 128,
}
SMOLLM3 = {
    **LLAMA,
    "model_type": "smollm3",
    "architectures": ["SmolLM3ForCausalLM"],
    "num_hidden_layers": 4,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
OLMO2 = {**LLAMA, "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "pad_token_id": 0}
GRANITE = {
    **LLAMA,
    "model_type": "granite",
    "architectures": ["GraniteForCausalLM"],
    "tie_word_embeddings": True,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.7,
    "logits_scaling": 0.5,
}
STABLELM = {
    **LLAMA,
    "model_type": "stablelm",
    "architectures": ["StableLmForCausalLM"],
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.25,
    "use_qkv_bias": True,
    "pad_token_id": 0,
}
STARCODER2 = {
    **LLAMA,
    "model_type": "starcoder2",
    "architectures": ["Starcoder2ForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "sliding_window": 24,
    "use_bias": True,
}
PHI = {
    **LLAMA,
    "model_type": "phi",
    "architectures": ["PhiForCausalLM"],
    "hidden_act": "gelu_new",
    "partial_rotary_factor": 0.5,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,
}
GPT2 = {
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
GPT_NEOX = {
    **LLAMA,
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
    "attention_bias": True,
    "rotary_pct": 0.25,
    "rotary_emb_base": 8000,
    "layer_norm_eps": 1e-5,
}
del GPT_NEOX["rope_theta"]
FALCON = {
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
BITNET = {
    **LLAMA,
    "model_type": "bitnet",
    "architectures": ["BitNetForCausalLM"],
    "hidden_act": "relu2",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-12,
}

ERNIE = {
    **LLAMA,
    "model_type": "ernie4_5",
    "architectures": ["Ernie4_5ForCausalLM"],
    "head_dim": 16,
    "tie_word_embeddings": True,
}
LFM2 = {
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
MIXTRAL = {
    **LLAMA,
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
OLMOE = {
    **LLAMA,
    "model_type": "olmoe",
    "architectures": ["OlmoeForCausalLM"],
    "intermediate_size": 96,
    "num_experts": 20,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
}
QWEN3_MOE = {
    **QWEN3,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 24,
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
QWEN2_MOE = {
    **LLAMA,
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "num_experts": 7,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 96,
    "norm_topk_prob": False,
    "mlp_bias": False,
}

GPT_OSS = {
    **LLAMA,
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

COHERE = {
    **LLAMA,
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
COHERE2 = {
    **COHERE,
    "model_type": "cohere2",
    "architectures": ["Cohere2ForCausalLM"],
    "sliding_window": 24,
    "sliding_window_pattern": 4,
    "num_hidden_layers": 4,
}
GLM = {
    **LLAMA,
    "model_type": "glm",
    "architectures": ["GlmForCausalLM"],
    "hidden_size": 72,
    "num_attention_heads": 6,
    "head_dim": 20,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "pad_token_id": 0,
}
GLM4 = {**GLM, "model_type": "glm4", "architectures": ["Glm4ForCausalLM"]}
EXAONE4 = {
    **LLAMA,
    "model_type": "exaone4",
    "architectures": ["Exaone4ForCausalLM"],
    "hidden_size": 80,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "sliding_window": 24,
    "sliding_window_pattern": 4,
    "num_hidden_layers": 4,
}
OLMO3 = {
    **LLAMA,
    "model_type": "olmo3",
    "architectures": ["Olmo3ForCausalLM"],
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "rope_theta": 500000.0,
    "pad_token_id": 0,
    "rope_scaling": {**YARN, "beta_fast": 8.0, "beta_slow": 1.0, "attention_factor": 1.2},
}
GRANITE_HYBRID = {
    **GRANITE,
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
GRANITE_SWA = {
    **GRANITE,
    "model_type": "granite_swa",
    "architectures": ["GraniteSWAForCausalLM"],
    "num_hidden_layers": 4,
    "sliding_window": 24,
    "layer_rope_theta": [0, 10000.0, 10000.0, 500000.0],
}
MELLUM = {
    **QWEN3_MOE,
    "model_type": "mellum",
    "architectures": ["MellumForCausalLM"],
    "num_hidden_layers": 3,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_parameters": {
        "full_attention": {**YARN, "rope_theta": 500000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
    },
}
del MELLUM["rope_theta"]
SEED_OSS = {
    **LLAMA,
    "model_type": "seed_oss",
    "architectures": ["SeedOssForCausalLM"],
    "head_dim": 24,
    "attention_bias": True,
}
NEMOTRON = {
    **LLAMA,
    "model_type": "nemotron",
    "architectures": ["NemotronForCausalLM"],
    "hidden_act": "relu2",
    "norm_eps": 1e-4,
    "partial_rotary_factor": 0.5,
}
ARCEE = {**LLAMA, "model_type": "arcee", "architectures": ["ArceeForCausalLM"], "hidden_act": "relu2"}
HELIUM = {**LLAMA, "model_type": "helium", "architectures": ["HeliumForCausalLM"], "head_dim": 16, "pad_token_id": 0}
INTERNLM3 = {
    **{key: value for key, value in LLAMA.items() if key not in ("attention_bias", "mlp_bias")},
    "model_type": "internlm3",
    "architectures": ["InternLM3ForCausalLM"],
    "head_dim": 24,
    "pad_token_id": 0,
}

HUNYUAN = {
    **LLAMA,
    "model_type": "hunyuan_v1_dense",
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "head_dim": 24,
    "pad_token_id": 0,
    "rope_scaling": {"rope_type": "dynamic", "alpha": 100.0, "factor": 1.0},
}
NANOCHAT = {
    **LLAMA,
    "model_type": "nanochat",
    "architectures": ["NanoChatForCausalLM"],
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-4,
    "final_logit_softcapping": 3.0,
}
MINISTRAL3 = {
    **LLAMA,
    "model_type": "ministral3",
    "architectures": ["Ministral3ForCausalLM"],
    "head_dim": 24,
    "sliding_window": None,
    "rope_parameters": {
        **YARN,
        "rope_theta": 500000.0,
        "original_max_position_embeddings": 16,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.3,
    },
}
del MINISTRAL3["rope_theta"]
APERTUS = {
    **LLAMA,
    "model_type": "apertus",
    "architectures": ["ApertusForCausalLM"],
    "hidden_act": "xielu",
    "rope_scaling": LLAMA3_SCALING,
    "pad_token_id": 0,
}
ERNIE_MOE = {
    **ERNIE,
    "model_type": "ernie4_5_moe",
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "num_hidden_layers": 3,
    "moe_num_experts": 20,
    "moe_k": 3,
    "moe_intermediate_size": 40,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "pad_token_id": 0,
}
del ERNIE_MOE["head_dim"]
MINICPM = {
    **LLAMA,
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "num_hidden_layers": 3,
    "tie_word_embeddings": True,
    "scale_emb": 6,
    "scale_depth": 1.4,
    "dim_model_base": 32,
}
GPT_BIGCODE = {
    **GPT2,
    "model_type": "gpt_bigcode",
    "architectures": ["GPTBigCodeForCausalLM"],
    "activation_function": "gelu_pytorch_tanh",
    "multi_query": True,
}
GPTJ = {
    **GPT2,
    "model_type": "gptj",
    "architectures": ["GPTJForCausalLM"],
    "n_embd": 72,
    "n_head": 3,
    "rotary_dim": 10,
    "n_positions": 256,
    "n_inner": 100,
    "tie_word_embeddings": False,
}
OPT = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "activation_function": "relu",
    "hidden_size": 72,
    "word_embed_proj_dim": 72,
    "ffn_dim": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "vocab_size": 48,
    "max_position_embeddings": 70,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
BLOOM = {
    "model_type": "bloom",
    "architectures": ["BloomForCausalLM"],
    "hidden_size": 72,
    "n_head": 6,
    "n_layer": 2,
    "seq_length": 256,
    "vocab_size": 48,
    "layer_norm_epsilon": 1e-4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MPT: dict[str, Any] = {
    "model_type": "mpt",
    "architectures": ["MptForCausalLM"],
    "d_model": 72,
    "n_heads": 6,
    "n_layers": 2,
    "expansion_ratio": 4,
    "max_seq_len": 256,
    "vocab_size": 48,
    "layer_norm_epsilon": 1e-4,
    "attn_config": {"alibi": True, "alibi_bias_max": 8},
    "no_bias": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

PHIMOE = {
    **LLAMA,
    "model_type": "phimoe",
    "architectures": ["PhimoeForCausalLM"],
    "intermediate_size": 48,
    "num_local_experts": 7,
    "num_experts_per_tok": 2,
    "router_jitter_noise": 0.2,
    "attention_bias": True,
    "lm_head_bias": True,
    "sliding_window": None,
}

EXAONE = {
    **LLAMA,
    "model_type": "exaone",
    "architectures": ["ExaoneForCausalLM"],
    "rope_scaling": LLAMA3_SCALING,
    "pad_token_id": 0,
}
OLMO = {**LLAMA, "model_type": "olmo", "architectures": ["OlmoForCausalLM"], "clip_qkv": 1.5, "pad_token_id": 0}
GRANITE_SHARED = {
    **GRANITE,
    "model_type": "granitemoeshared",
    "architectures": ["GraniteMoeSharedForCausalLM"],
    "intermediate_size": 40,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 72,
}
