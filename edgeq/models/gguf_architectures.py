"""How GGUF writes each architecture: one row per `general.architecture`.

Source: the keys and tensors that llama.cpp's loaders ask for, and what its converter does to a checkpoint's tensors.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import (
    falcon_h1,
    gguf_gemma3n,
    gguf_gemma4,
    gguf_granite,
    gguf_latents,
    gguf_mixtures,
    gguf_nemotron,
    gguf_older,
    gguf_selective,
    gguf_xielu,
    gpt2,
)
from edgeq.models import gguf_encoders as encoders
from edgeq.models import gguf_hooks as hooks
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.wrapped import WRAPPED

_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
_SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
_NO_WINDOW = {"use_sliding_window": False}
_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_EXPERTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_LOCAL_EXPERTS = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_EXPERT_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
_SHARED_WIDTH = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
_MULTIPLIERS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
_MAMBA: dict[str, Any] = {"fused": ("ssm_in",), "vectors": ("ssm_a", "ssm_d", "ssm_norm")}
_DELTA_NET = {
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
}
_QWEN3_5: dict[str, Any] = {
    "fixed": {"hidden_act": "silu", "attention_bias": False},
    "assumed": {"partial_rotary_factor": 1.0},
    "read": hooks.read_qwen3_5,
    "write": hooks.write_qwen3_5,
    "woven": {"attn_q": ("attn_q", "attn_gate")},
    "renamed": {"ffn_norm": "post_attention_norm"},
}
_NEMOTRON_H: dict[str, Any] = {
    "names": {"rms_norm_eps": "layer_norm_epsilon"},
    "fixed": {"mlp_hidden_act": "relu2"},
    "read": gguf_nemotron.read,
    "write": gguf_nemotron.write,
    "by_layer": ("feed_forward_length",),
}
_SHARED_EXPERTS = _EXPERTS | _EXPERT_WIDTH | _SHARED_WIDTH
_LOGITS = {"logit_scale": "logit_scale"}
ARCHITECTURES = {
    "llama": GgufArchitecture("llama", interleaved=True, biases=_BIASES),
    "qwen2": GgufArchitecture("qwen2", fixed=_NO_WINDOW),
    "qwen2moe": GgufArchitecture(
        "qwen2_moe",
        keys=_EXPERTS | _EXPERT_WIDTH | _SHARED_WIDTH,
        fixed={**_NO_WINDOW, "norm_topk_prob": False, **_SPARSE},
        biases={"qkv_bias": "blk.0.attn_q.bias"},
        vectors=("ffn_gate_inp_shexp",),
    ),
    "qwen3": GgufArchitecture("qwen3", fixed={**_NO_WINDOW, "attention_bias": False}),
    "qwen3moe": GgufArchitecture(
        "qwen3_moe",
        keys=_EXPERTS | _EXPERT_WIDTH,
        fixed={**_NO_WINDOW, "attention_bias": False, "norm_topk_prob": True, **_SPARSE},
    ),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", keys=_WINDOW | _CAPS, derived=hooks.gemma(2, 46)),
    "gemma3": GgufArchitecture(
        "gemma3_text",
        keys=_WINDOW,
        fixed={"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        derived=hooks.gemma(6, 62),
        scaled="attn_q_norm",
    ),
    "gemma4": GgufArchitecture(
        "gemma4_text",
        keys=_WINDOW
        | {
            "final_logit_softcapping": "final_logit_softcapping",
            "attention.shared_kv_layers": "num_kv_shared_layers",
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
        },
        fixed={"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        read=gguf_gemma4.read,
        write=gguf_gemma4.write,
        fused=("ffn_gate_up_exps",),
        own_rope=True,
        by_layer=("feed_forward_length",),
    ),
    "gemma3n": GgufArchitecture(
        "gemma3n_text",
        keys=_WINDOW
        | {
            "final_logit_softcapping": "final_logit_softcapping",
            "attention.shared_kv_layers": "num_kv_shared_layers",
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
            "altup.num_inputs": "altup_num_inputs",
            "altup.active_idx": "altup_active_idx",
        },
        fixed={"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "altup_correct_scale": True},
        read=gguf_gemma3n.read,
        write=gguf_gemma3n.write,
        fused=tuple(gguf_gemma3n.STACKED),
        vectors=tuple(part for parts in gguf_gemma3n.STACKED.values() for part in parts),
    ),
    "gemma-embedding": GgufArchitecture(
        "gemma3_text",
        keys=_WINDOW,
        fixed={"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        assumed={"use_bidirectional_attention": True},
        derived=hooks.gemma(6, 62),
        read=encoders.read_gemma,
        write=encoders.write_gemma,
    ),
    "granite": GgufArchitecture("granite", interleaved=True, keys=_MULTIPLIERS, biases=_BIASES),
    "granitemoe": GgufArchitecture("granitemoe", interleaved=True, keys=_MULTIPLIERS | _LOCAL_EXPERTS, biases=_BIASES),
    "olmo2": GgufArchitecture("olmo2"),
    "olmoe": GgufArchitecture("olmoe", keys=_EXPERTS, fixed={"norm_topk_prob": False}, write=hooks.write_olmoe),
    "smollm3": GgufArchitecture("smollm3", interleaved=True, fixed=_NO_WINDOW, derived=hooks.smollm3),
    "phi2": GgufArchitecture("phi", layer_norm="layer_norm_eps", fixed={"hidden_act": "gelu_new"}),
    "phi3": GgufArchitecture("phi3", keys=_WINDOW, fixed={"hidden_act": "silu"}, fused=("attn_qkv", "ffn_up")),
    "gpt2": GgufArchitecture(
        "gpt2",
        layer_norm="layer_norm_epsilon",
        names=gpt2.NAMES,
        fixed={"activation_function": "gelu_new"},
        fused=("attn_qkv",),
    ),
    "gptneox": GgufArchitecture(
        "gpt_neox",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu", "attention_bias": True},
        read=hooks.read_neox,
        write=hooks.write_parallel,
        fused=("attn_qkv",),
    ),
    "falcon": GgufArchitecture(
        "falcon",
        layer_norm="layer_norm_epsilon",
        names={"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
        fixed={"activation": "gelu", "bias": False, "alibi": False, "parallel_attn": True},
        read=hooks.read_falcon,
        write=hooks.write_falcon,
        fused=("attn_qkv",),
        renamed={"ffn_norm": "attn_norm", "attn_norm": "attn_norm_2"},
    ),
    "stablelm": GgufArchitecture(
        "stablelm",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "silu"},
        biases={"use_qkv_bias": "blk.0.attn_q.bias"},
        read=hooks.read_stablelm,
        write=hooks.write_parallel,
    ),
    "starcoder2": GgufArchitecture(
        "starcoder2",
        layer_norm="norm_epsilon",
        fixed={"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
    ),
    "bitnet": GgufArchitecture("bitnet", read=hooks.read_bitnet, write=hooks.write_bitnet),
    "ernie4_5": GgufArchitecture("ernie4_5", fixed={"hidden_act": "silu", "use_bias": False}),
    "bert": GgufArchitecture(
        "bert",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu"},
        read=hooks.read_bert,
        write=hooks.write_bert,
    ),
    "modern-bert": GgufArchitecture(
        "modernbert",
        layer_norm="norm_eps",
        keys={"attention.sliding_window": "local_attention"},
        fixed={"attention_bias": False, "mlp_bias": False, "norm_bias": False},
        read=encoders.read_modernbert,
        write=encoders.write_modernbert,
        fused=("attn_qkv", "ffn_up"),
    ),
    "nomic-bert": GgufArchitecture(
        "nomic_bert",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "silu"},
        read=hooks.read_bert,
        write=hooks.write_bert,
        fused=("attn_qkv",),
    ),
    "jina-bert-v2": GgufArchitecture(
        "jina_bert_v2",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu", "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
        read=hooks.read_bert,
        write=hooks.write_bert,
        fused=("ffn_up",),
    ),
    "gpt-oss": GgufArchitecture(
        "gpt_oss",
        keys=_LOCAL_EXPERTS | _WINDOW | {"expert_feed_forward_length": "intermediate_size"},
        fixed={"hidden_act": "silu", "attention_bias": True, "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
        derived=hooks.gpt_oss,
        yarn={"truncate": False},
    ),
    "lfm2": GgufArchitecture(
        "lfm2",
        names={"rms_norm_eps": "norm_eps"},
        keys={"shortconv.l_cache": "conv_L_cache"},
        assumed={"block_auto_adjust_ff_dim": False},
        fixed={"conv_bias": False},
        read=hooks.read_lfm2,
        write=hooks.write_lfm2,
        renamed={"output_norm": "token_embd_norm"},
    ),
    "command-r": GgufArchitecture(
        "cohere",
        layer_norm="layer_norm_eps",
        keys=_LOGITS,
        fixed={"hidden_act": "silu", "attention_bias": False, "use_qk_norm": False, "tie_word_embeddings": True},
    ),
    "cohere2": GgufArchitecture(
        "cohere2",
        layer_norm="layer_norm_eps",
        keys=_LOGITS | _WINDOW,
        fixed={"hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": True},
        derived=hooks.every(4),
    ),
    "chatglm": GgufArchitecture(
        "glm",
        square=True,
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"attention_bias": "blk.0.attn_q.bias"},
        fused=("ffn_up",),
    ),
    "glm4": GgufArchitecture(
        "glm4",
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"attention_bias": "blk.0.attn_q.bias"},
        fused=("ffn_up",),
    ),
    "exaone4": GgufArchitecture(
        "exaone4",
        keys=_WINDOW,
        fixed={"hidden_act": "silu"},
        derived=hooks.exaone4,
        read=hooks.read_exaone4,
        write=hooks.write_exaone4,
    ),
    "seed_oss": GgufArchitecture(
        "seed_oss",
        fixed={"hidden_act": "silu", "attention_out_bias": False, "mlp_bias": False},
        biases={"attention_bias": "blk.0.attn_q.bias"},
    ),
    "nemotron": GgufArchitecture(
        "nemotron",
        square=True,
        layer_norm="norm_eps",
        fixed={"hidden_act": "relu2"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
    ),
    "arcee": GgufArchitecture(
        "arcee", interleaved=True, fixed={"hidden_act": "relu2", "attention_bias": False, "mlp_bias": False}
    ),
    "minicpm": GgufArchitecture(
        "granite",
        interleaved=True,
        keys={key: name for key, name in _MULTIPLIERS.items() if key != "attention.scale"},
        derived=hooks.minicpm,
    ),
    "starcoder": GgufArchitecture(
        "gpt_bigcode",
        layer_norm="layer_norm_epsilon",
        names=gpt2.NAMES,
        fixed={"activation_function": "gelu_pytorch_tanh", "multi_query": True},
        fused=("attn_qkv",),
    ),
    "hunyuan-dense": GgufArchitecture("hunyuan_v1_dense", fixed={"hidden_act": "silu", "attention_bias": False}),
    "mistral3": GgufArchitecture(
        "ministral3",
        interleaved=True,
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "sliding_window": None},
    ),
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        interleaved=True,
        keys=_MULTIPLIERS,
        biases=_BIASES,
        read=gguf_granite.read_granite4,
        write=gguf_granite.write_granite4,
        **_MAMBA,
    ),
    "falcon-h1": GgufArchitecture(
        "falcon_h1",
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, **falcon_h1.WITHOUT_FACTORS},
        read=hooks.read_falcon_h1,
        write=hooks.write_falcon_h1,
        bare=("ssm_a", "ssm_d", "ffn_norm"),
        **_MAMBA,
    ),
}
ARCHITECTURES |= {
    "qwen35": GgufArchitecture("qwen3_5_text", keys=_DELTA_NET, **_QWEN3_5),
    "qwen35moe": GgufArchitecture(
        "qwen3_5_moe_text", keys=_DELTA_NET | _SHARED_EXPERTS, vectors=("ffn_gate_inp_shexp",), **_QWEN3_5
    ),
    "qwen3next": GgufArchitecture(
        "qwen3_next",
        keys=_DELTA_NET | _SHARED_EXPERTS,
        vectors=("ffn_gate_inp_shexp",),
        **_QWEN3_5
        | {
            "fixed": _QWEN3_5["fixed"] | _SPARSE | {"norm_topk_prob": True},
            "read": hooks.read_qwen3_next,
            "write": hooks.write_qwen3_next,
            "woven": _QWEN3_5["woven"] | {"ssm_ba": ("ssm_beta", "ssm_alpha")},
        },
    ),
}
_ROUTED = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
}
ARCHITECTURES |= {
    "lfm2moe": GgufArchitecture(
        "lfm2_moe",
        names={"rms_norm_eps": "norm_eps"},
        keys={"shortconv.l_cache": "conv_L_cache", "leading_dense_block_count": "num_dense_layers"}
        | _EXPERTS
        | _EXPERT_WIDTH,
        fixed={"conv_bias": False, "use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        read=gguf_mixtures.read_lfm2_moe,
        write=gguf_mixtures.write_lfm2_moe,
        renamed={"output_norm": "token_embd_norm"},
    ),
    "glm4moe": GgufArchitecture(
        "glm4_moe",
        keys=_ROUTED | _EXPERT_WIDTH,
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"attention_bias": "blk.0.attn_q.bias", "use_qk_norm": "blk.0.attn_q_norm.weight"},
        read=gguf_mixtures.read,
        write=gguf_mixtures.write,
        renamed={"ffn_norm": "post_attention_norm"},
    ),
    "bailingmoe2": GgufArchitecture(
        "bailing_moe_v2",
        keys=_EXPERTS
        | _EXPERT_WIDTH
        | {
            "expert_shared_count": "num_shared_experts",
            "leading_dense_block_count": "first_k_dense_replace",
            "expert_weights_scale": "routed_scaling_factor",
        },
        fixed={"hidden_act": "silu", "use_bias": False, "use_qkv_bias": False, "use_qk_norm": True},
        assumed={"partial_rotary_factor": 1.0},
        read=gguf_mixtures.read_ling,
        write=gguf_mixtures.write_ling,
        fused=("attn_qkv",),
        square=True,
    ),
    "dots1": GgufArchitecture(
        "dots1",
        keys=_ROUTED | _EXPERT_WIDTH,
        fixed={"hidden_act": "silu", "attention_bias": False},
        assumed={"sliding_window": None},
        read=gguf_mixtures.read,
        write=gguf_mixtures.write_dots1,
    ),
    "afmoe": GgufArchitecture(
        "afmoe",
        keys=_WINDOW
        | _EXPERTS
        | _EXPERT_WIDTH
        | {
            "expert_shared_count": "num_shared_experts",
            "leading_dense_block_count": "num_dense_layers",
            "expert_weights_scale": "route_scale",
        },
        fixed={"hidden_act": "silu", "attention_bias": False, "mup_enabled": True, "global_attn_every_n_layers": 4},
        derived=hooks.every(4),
        read=gguf_mixtures.read_afmoe,
        write=gguf_mixtures.write_afmoe,
    ),
}
ARCHITECTURES |= {"deepseek2": gguf_latents.SIGMOIDS, "minicpm3": gguf_latents.MINICPM3}
ARCHITECTURES |= {
    "bloom": GgufArchitecture(
        "bloom",
        layer_norm="layer_norm_epsilon",
        names=gguf_older.BLOOM_NAMES,
        fixed={"apply_residual_connection_post_layernorm": False},
        fused=("attn_qkv",),
    ),
    "exaone": GgufArchitecture("exaone", fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}),
    "olmo": GgufArchitecture(
        "olmo",
        layer_norm="layer_norm_epsilon",
        interleaved=True,
        fixed={"hidden_act": "silu", "attention_bias": False},
        read=gguf_older.read_olmo,
        write=gguf_older.write_olmo,
    ),
    "mpt": GgufArchitecture(
        "mpt",
        layer_norm="layer_norm_epsilon",
        names=gguf_older.MPT_NAMES,
        fixed={"no_bias": True},
        read=gguf_older.read_mpt,
        write=gguf_older.write_mpt,
        fused=("attn_qkv",),
    ),
    "apertus": GgufArchitecture(
        "apertus",
        fixed={"hidden_act": "xielu"},
        biases={"attention_bias": "blk.0.attn_q.bias"},
        read=gguf_xielu.read,
        write=gguf_xielu.write,
    ),
    "granite_swa": GgufArchitecture(
        "granite_swa",
        interleaved=True,
        keys=_MULTIPLIERS | _WINDOW,
        fixed={"hidden_act": "silu"},
        biases=_BIASES,
        read=gguf_granite.read_swa,
        write=gguf_granite.write_swa,
    ),
    "mellum": GgufArchitecture(
        "mellum",
        keys=_EXPERTS | _EXPERT_WIDTH | _WINDOW,
        fixed={"hidden_act": "silu", "attention_bias": False, "norm_topk_prob": True},
        read=gguf_mixtures.read_mellum,
        write=gguf_mixtures.write_mellum,
    ),
    "ernie4_5-moe": GgufArchitecture(
        "ernie4_5_moe",
        keys={
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "expert_feed_forward_length": "moe_intermediate_size",
            "leading_dense_block_count": "moe_layer_start_index",
        },
        fixed={"hidden_act": "silu", "use_bias": False},
        read=gguf_mixtures.read_ernie,
        write=gguf_mixtures.write_ernie,
    ),
    "nemotron_h": GgufArchitecture("nemotron_h", **_NEMOTRON_H, **_MAMBA),
    "nemotron_h_moe": GgufArchitecture("nemotron_h", keys=gguf_nemotron.MOE, **_NEMOTRON_H, **_MAMBA),
}
ARCHITECTURES["mamba"] = GgufArchitecture(
    "mamba",
    attends=False,
    names={"rms_norm_eps": "layer_norm_epsilon"},
    keys=gguf_selective.KEYS,
    fixed={"hidden_act": "silu", "expand": 2, "use_bias": False, "use_conv_bias": True},
    read=gguf_selective.read,
    write=gguf_selective.write,
    fused=("ssm_in", "ssm_x"),
)
ARCHITECTURES["mamba2"] = GgufArchitecture(
    "mamba2",
    attends=False,
    names={"rms_norm_eps": "layer_norm_epsilon"},
    fixed={"hidden_act": "silu"},
    read=gguf_selective.read_mamba2,
    write=gguf_selective.write_mamba2,
    **_MAMBA,
)
ARCHITECTURES["jamba"] = GgufArchitecture(
    "jamba",
    keys=gguf_selective.JAMBA | _EXPERTS,
    fixed={"hidden_act": "silu", "mamba_expand": 2, "mamba_proj_bias": False, "mamba_conv_bias": True},
    read=gguf_selective.read_jamba,
    write=gguf_selective.write_jamba,
    fused=("ssm_in", "ssm_x"),
    square=True,
)
FALCON_MAMBA = replace(ARCHITECTURES["mamba"], model_type="falcon_mamba", read=gguf_selective.read_falcon)
# Granite 4 with experts: of those layers that are Mamba's, or of none
GRANITE4_MOE = replace(
    ARCHITECTURES["granitehybrid"],
    keys=_MULTIPLIERS | _LOCAL_EXPERTS | {"expert_shared_feed_forward_length": "shared_intermediate_size"},
)
GRANITE_SHARED = replace(
    ARCHITECTURES["granitemoe"],
    model_type="granitemoeshared",
    keys=_MULTIPLIERS | _LOCAL_EXPERTS | {"expert_shared_feed_forward_length": "shared_intermediate_size"},
)
# OLMo 2 with local layers
OLMO3 = GgufArchitecture("olmo3", keys=_WINDOW, fixed={"attention_bias": False}, derived=hooks.every(4))
# A Llama with experts
MIXTRAL = GgufArchitecture("mixtral", interleaved=True, keys=_LOCAL_EXPERTS)
# Here -> GGUF: Mistral is a Llama there, whose window is not written
EXPORTED = {entry.model_type: name for name, entry in ARCHITECTURES.items()} | {
    "gemma3_text": "gemma3",
    "nemotron_h": "nemotron_h",
    "falcon_mamba": "mamba",
    "mistral": "llama",
    "mixtral": "llama",
    "internlm3": "llama",
    "bailing_moe": "bailingmoe2",
    "olmo3": "olmo2",
    "granitemoehybrid": "granite",
    "granitemoeshared": "granitemoe",
    "granite": "granite",
    "minicpm": "granite",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "camembert": "bert",
    **dict.fromkeys(gguf_latents.BY_TYPE, "deepseek2"),
}


def known(metadata: Mapping[str, Any], source: str) -> tuple[str, GgufArchitecture]:
    """`general.architecture` and its entry. UnsupportedError, with the known ones, for another."""
    if metadata.get("general.type") == "imatrix":
        raise UnsupportedError(f"{source}: is a calibration, not a model: `edgeq show` tells of which, give that one")
    if metadata.get("general.type") == "adapter":
        raise UnsupportedError(f"{source}: is an adapter, not a model: give the model, and this with --lora")
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{source}: architecture {str(name)[:60]!r} cannot be imported; known are {', '.join(ARCHITECTURES)}"
        )
    if name == "llama" and metadata.get("llama.expert_count"):
        return name, MIXTRAL
    if name == "olmo2" and metadata.get("olmo2.attention.sliding_window"):
        return name, OLMO3
    if name == "mamba" and metadata.get(f"mamba.{gguf_selective.NORMED}"):
        return name, FALCON_MAMBA
    if name == "deepseek2":
        return name, gguf_latents.entry_of(metadata)
    if name == "granitehybrid" and metadata.get("granitehybrid.expert_count"):
        return name, GRANITE4_MOE
    if name == "granitemoe" and metadata.get("granitemoe.expert_shared_feed_forward_length"):
        return name, GRANITE4_MOE
    if name == "granite" and metadata.get("granite.rope.scaling.finetuned") is False:
        return name, ARCHITECTURES["granitehybrid"]
    return name, ARCHITECTURES[name]


def exported(
    model_type: str, source: str, recurrent: bool = False, both_ways: bool = False, routed: bool = False
) -> tuple[str, GgufArchitecture]:
    """The `general.architecture` that holds a model of this type, with recurrent layers or without, and its entry;
    `both_ways`: its tokens see what follows them; `routed`: it has experts. UnsupportedError if none does."""
    model_type = WRAPPED.get(model_type, model_type)  # of files that name the larger model
    if model_type == "gemma3_text" and both_ways:
        return "gemma-embedding", ARCHITECTURES["gemma-embedding"]
    if model_type not in EXPORTED:
        raise UnsupportedError(f"{source}: {model_type} cannot be exported; supported are {', '.join(EXPORTED)}")
    name = EXPORTED[model_type]
    if model_type == "nemotron_h" and routed:
        return "nemotron_h_moe", ARCHITECTURES["nemotron_h_moe"]
    if model_type == "granitemoeshared":
        return name, GRANITE_SHARED
    if model_type == "granitemoehybrid" and routed:
        return ("granitehybrid" if recurrent else "granitemoe"), GRANITE4_MOE
    if model_type == "granitemoehybrid" and recurrent:
        name = "granitehybrid"
    apart = {"mixtral": MIXTRAL, "olmo3": OLMO3, "granitemoehybrid": ARCHITECTURES["granitehybrid"]}
    apart |= {"falcon_mamba": FALCON_MAMBA} | gguf_latents.BY_TYPE
    return name, apart.get(model_type, ARCHITECTURES[name])
