"""Decoders some layers of which keep a state, as GGUF writes them: Mamba, delta nets, short convolutions."""

from dataclasses import replace
from typing import Any

from edgeq.models import falcon_h1, gguf_granite, gguf_nemotron, gguf_selective
from edgeq.models import gguf_hooks as hooks
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_keys import BIASES, EXPERTS, MULTIPLIERS, SHARED_EXPERTS, SPARSE
from edgeq.models.gguf_mixtures import GRANITE_KEYS

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
RECURRENT = {
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
    "granitehybrid": GgufArchitecture(
        "granitemoehybrid",
        interleaved=True,
        keys=MULTIPLIERS,
        biases=BIASES,
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
    "qwen35": GgufArchitecture("qwen3_5_text", keys=_DELTA_NET, **_QWEN3_5),
    "qwen35moe": GgufArchitecture(
        "qwen3_5_moe_text", keys=_DELTA_NET | SHARED_EXPERTS, vectors=("ffn_gate_inp_shexp",), **_QWEN3_5
    ),
    "qwen3next": GgufArchitecture(
        "qwen3_next",
        keys=_DELTA_NET | SHARED_EXPERTS,
        vectors=("ffn_gate_inp_shexp",),
        **_QWEN3_5
        | {
            "fixed": _QWEN3_5["fixed"] | SPARSE | {"norm_topk_prob": True},
            "read": hooks.read_qwen3_next,
            "write": hooks.write_qwen3_next,
            "woven": _QWEN3_5["woven"] | {"ssm_ba": ("ssm_beta", "ssm_alpha")},
        },
    ),
    "nemotron_h": GgufArchitecture("nemotron_h", **_NEMOTRON_H, **_MAMBA),
    "nemotron_h_moe": GgufArchitecture("nemotron_h", keys=gguf_nemotron.MOE, **_NEMOTRON_H, **_MAMBA),
    "mamba": GgufArchitecture(
        "mamba",
        attends=False,
        names={"rms_norm_eps": "layer_norm_epsilon"},
        keys=gguf_selective.KEYS,
        fixed={"hidden_act": "silu", "expand": 2, "use_bias": False, "use_conv_bias": True},
        read=gguf_selective.read,
        write=gguf_selective.write,
        fused=("ssm_in", "ssm_x"),
    ),
    "mamba2": GgufArchitecture(
        "mamba2",
        attends=False,
        names={"rms_norm_eps": "layer_norm_epsilon"},
        fixed={"hidden_act": "silu"},
        read=gguf_selective.read_mamba2,
        write=gguf_selective.write_mamba2,
        **_MAMBA,
    ),
    "jamba": GgufArchitecture(
        "jamba",
        keys=gguf_selective.JAMBA | EXPERTS,
        fixed={"hidden_act": "silu", "mamba_expand": 2, "mamba_proj_bias": False, "mamba_conv_bias": True},
        read=gguf_selective.read_jamba,
        write=gguf_selective.write_jamba,
        fused=("ssm_in", "ssm_x"),
        square=True,
    ),
}
FALCON_MAMBA = replace(RECURRENT["mamba"], model_type="falcon_mamba", read=gguf_selective.read_falcon)
# Granite 4 with experts: of those layers that are Mamba's, or of none
GRANITE4_MOE = replace(RECURRENT["granitehybrid"], keys=GRANITE_KEYS)
