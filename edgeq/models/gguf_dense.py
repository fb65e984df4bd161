"""Decoders with an RMSNorm and an MLP in each layer, as GGUF writes them."""

from edgeq.models import gguf_gemma3n, gguf_gemma4, gguf_granite, gguf_xielu
from edgeq.models import gguf_hooks as hooks
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_keys import BIASES, MULTIPLIERS, NO_WINDOW, WINDOW

_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_LOGITS = {"logit_scale": "logit_scale"}
DENSE = {
    "llama": GgufArchitecture("llama", interleaved=True, biases=BIASES),
    "qwen2": GgufArchitecture("qwen2", fixed=NO_WINDOW),
    "qwen3": GgufArchitecture("qwen3", fixed={**NO_WINDOW, "attention_bias": False}),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", keys=WINDOW | _CAPS, derived=hooks.gemma(2, 46)),
    "gemma3": GgufArchitecture(
        "gemma3_text",
        keys=WINDOW,
        fixed={"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        derived=hooks.gemma(6, 62),
        scaled="attn_q_norm",
    ),
    "gemma4": GgufArchitecture(
        "gemma4_text",
        keys=WINDOW
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
        keys=WINDOW
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
    "granite": GgufArchitecture("granite", interleaved=True, keys=MULTIPLIERS, biases=BIASES),
    "granite_swa": GgufArchitecture(
        "granite_swa",
        interleaved=True,
        keys=MULTIPLIERS | WINDOW,
        fixed={"hidden_act": "silu"},
        biases=BIASES,
        read=gguf_granite.read_swa,
        write=gguf_granite.write_swa,
    ),
    "minicpm": GgufArchitecture(
        "granite",
        interleaved=True,
        keys={key: name for key, name in MULTIPLIERS.items() if key != "attention.scale"},
        derived=hooks.minicpm,
    ),
    "olmo2": GgufArchitecture("olmo2"),
    "smollm3": GgufArchitecture("smollm3", interleaved=True, fixed=NO_WINDOW, derived=hooks.smollm3),
    "phi3": GgufArchitecture("phi3", keys=WINDOW, fixed={"hidden_act": "silu"}, fused=("attn_qkv", "ffn_up")),
    "bitnet": GgufArchitecture("bitnet", read=hooks.read_bitnet, write=hooks.write_bitnet),
    "ernie4_5": GgufArchitecture("ernie4_5", fixed={"hidden_act": "silu", "use_bias": False}),
    "command-r": GgufArchitecture(
        "cohere",
        layer_norm="layer_norm_eps",
        keys=_LOGITS,
        fixed={"hidden_act": "silu", "attention_bias": False, "use_qk_norm": False, "tie_word_embeddings": True},
    ),
    "cohere2": GgufArchitecture(
        "cohere2",
        layer_norm="layer_norm_eps",
        keys=_LOGITS | WINDOW,
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
    "exaone": GgufArchitecture("exaone", fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}),
    "exaone4": GgufArchitecture(
        "exaone4",
        keys=WINDOW,
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
    "apertus": GgufArchitecture(
        "apertus",
        fixed={"hidden_act": "xielu"},
        biases={"attention_bias": "blk.0.attn_q.bias"},
        read=gguf_xielu.read,
        write=gguf_xielu.write,
    ),
    "hunyuan-dense": GgufArchitecture("hunyuan_v1_dense", fixed={"hidden_act": "silu", "attention_bias": False}),
    "mistral3": GgufArchitecture(
        "ministral3",
        interleaved=True,
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "sliding_window": None},
    ),
}
# OLMo 2 with local layers
OLMO3 = GgufArchitecture("olmo3", keys=WINDOW, fixed={"attention_bias": False}, derived=hooks.every(4))
