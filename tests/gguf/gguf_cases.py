"""Which of the architectures' configurations GGUF can say, and what the others become for that."""

from architecture_cases import CASES

from edgeq.models.falcon_h1 import WITHOUT_FACTORS

_GEMMA3N = {"laurel_rank": 64, "hidden_size_per_layer_input": 256, "final_logit_softcapping": 30.0}
NEAREST = {
    "gemma3n": _GEMMA3N
    | {
        "altup_num_inputs": 4,
        "altup_active_idx": 0,
        "num_hidden_layers": 22,
        "num_kv_shared_layers": 2,
        "layer_types": [("sliding_attention", "full_attention")[i % 5 == 4] for i in range(21)] + ["full_attention"],
        "intermediate_size": [100] * 22,
        "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 12,
    },
    "gemma3n-older": _GEMMA3N
    | {"attention_bias": False, "activation_sparsity_pattern": [0.95] * 5, "vocab_size_per_layer_input": 50},
    "mamba2-ragged": {"use_bias": False, "use_conv_bias": True},
    "jamba-ragged": {"mamba_expand": 2, "mamba_proj_bias": False, "mamba_conv_bias": True},
    "falcon-mamba": {"mixer_rms_eps": 1e-5},
    "falcon-mamba-ragged": {"mixer_rms_eps": 1e-5},
    "granite-swa": {"layer_rope_theta": [0, 10000.0, 10000.0, 0]},
    "mpt-clipped": {"attn_config": {"alibi": True, "clip_qkv": 1.5}},
    "granite-4-h-experts": {"mamba_proj_bias": False, "mamba_conv_bias": True},
    "nemotron-h-latent": {"mlp_bias": False},
    "mellum": {
        "mlp_layer_types": ["sparse"] * 3,
        "rope_parameters": CASES["mellum"]["rope_parameters"]
        | {"sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}},
    },
    "gemma3": {"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
    "phi3": {"sliding_window": None},
    "starcoder2": {"sliding_window": None},
    "gpt-neox-sequential": {"attention_bias": True},
    "falcon-newer": {"bias": False},
    "olmoe": {"num_key_value_heads": 4},
    "gpt-oss": {"swiglu_limit": 7.0},
    "olmo3-no-scaling": {"attention_bias": False},
    "glm": {"hidden_size": 120},
    "falcon-h1": WITHOUT_FACTORS,
    "falcon-h1-norm": WITHOUT_FACTORS | {"projectors_bias": False},
    "qwen3-5": {"edgeq_heads_in_turn": True, "linear_value_head_dim": 32},
    "qwen3-5-equal-heads": {"attention_bias": False, "linear_value_head_dim": 32},
    "qwen3-5-moe": {"edgeq_heads_in_turn": True, "linear_value_head_dim": 32},
    "qwen3-next": {"mlp_only_layers": [], "linear_value_head_dim": 32},
    "gemma4": {"vocab_size_per_layer_input": 48},
    "lfm2-moe": {"routed_scaling_factor": 1.0},
    "dots1": {"num_key_value_heads": 4, "layer_types": ["full_attention"] * 3},
    "ling": {"head_dim": 16},
    "sarvam": {"head_dim": 16},
    "gemma4-experts": {"rope_parameters": CASES["gemma4"]["rope_parameters"]},
    "deepseek-v2-queries": {"attention_bias": False},
    "minicpm3": {"scale_emb": 12.0, "dim_model_base": 256},
    "minicpm3-plain": {"scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256}
    | {"mlp_bias": False, "attention_bias": False},
    "youtu": {"attention_bias": False},
    "glm-no-bias": {"hidden_act": "silu", "hidden_size": 120},
}
REFUSED = {
    *("llama-rope-dynamic", "llama-rope-dynamic-beyond", "llama-rope-yarn-mscale", "gemma3-rope-by-layer"),
    *("smollm3-window", "qwen2-window-from-layer-1", "qwen3-bias", "qwen3-moe-some-dense", "mistral-window"),
    *(
        "cohere-bias",
        "nanochat",
        "ernie4-5-moe-bias",
        "gptj",
        "opt",
        "opt-no-bias",
        "starcoder-many-keys",
        "apertus-bias",
        "hunyuan-bias",
        "nemotron-bias",
        "exaone4",
        "olmo3",
        "nemotron-h-bias",
        "mamba-ragged",
        "bamba",
        "bamba-ragged",
        "phimoe",
        "phimoe-longrope",
        "falcon-alibi",
        "granitemoe-swa",
        "helium",
        "gemma4-some-shared",
        "lfm2-moe-no-bias",
        "solar-open",
        "afmoe-no-scaling",
        "deepseek-v3-halves",
    ),
    *("ministral", "ministral-local", "cwm", "cwm-bias", "vaultgemma", "vaultgemma-uncapped", "lfm3", "lfm3-plain"),
    *("olmo-hybrid", "olmo-hybrid-rope", "flex-olmo", "flex-olmo-bias", "gpt-neo", "gpt-neo-local", "codegen"),
    *("codegen-tied", "biogpt", "biogpt-plain", "jais2-no-bias", "modernbert-decoder", "modernbert-decoder-bias"),
    *("hunyuan-moe-bias", "minimax-m2-tied", "exaone-moe-groups", "cohere2-moe-softmax"),
    *("llama4", "llama4-large", "hyperclovax", "hyperclovax-plain", "persimmon"),
    *("persimmon-plain", "zamba2", "zamba2-plain", "recurrent-gemma"),
    *("recurrent-gemma-wide", "sarvam-many", "sarvam-mla", "gpt", "gpt-relu"),
    *("kimi-linear", "kimi-linear-newer", "hy-v3-bias"),
    *("seed-oss-bias", "arcee-bias", "internlm3-bias", "ling-biases"),
    *("falcon-sequential", "ernie4-5-bias", "lfm2-bias", "gpt-oss-no-window"),
}


def changed(case: str) -> dict:
    """The test's configuration, or its nearest that GGUF can say."""
    config = dict(CASES[case])
    if config["model_type"] == "gemma2":
        config["query_pre_attn_scalar"] = config["head_dim"]
    return config | NEAREST.get(case, {})
