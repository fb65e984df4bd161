"""Small random checkpoints, one per architectural feature, that every machine makes alike from a seed.

Needs NumPy alone: tools/make_golden.py makes the same ones for transformers, whose logits the tests compare with.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

POSITIONS = 64  # tokens of a case's prompt
Weights = dict[str, npt.NDArray[np.float32]]

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
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor under its Hugging Face name."""
    n, m = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", n // config["num_attention_heads"])
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    attention, mlp = config["attention_bias"], config["mlp_bias"]
    qwen2 = config["model_type"] == "qwen2"
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], n)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for part, rows, columns, bias in (
            ("self_attn.q_proj", q, n, attention or qwen2),
            ("self_attn.k_proj", kv, n, attention or qwen2),
            ("self_attn.v_proj", kv, n, attention or qwen2),
            ("self_attn.o_proj", n, q, attention),
            ("mlp.gate_proj", m, n, mlp),
            ("mlp.up_proj", m, n, mlp),
            ("mlp.down_proj", n, m, mlp),
        ):
            result[f"{layer}.{part}.weight"] = (rows, columns)
            if bias:
                result[f"{layer}.{part}.bias"] = (rows,)
        result[f"{layer}.input_layernorm.weight"] = (n,)
        result[f"{layer}.post_attention_layernorm.weight"] = (n,)
    result["model.norm.weight"] = (n,)
    if not config["tie_word_embeddings"]:
        result["lm_head.weight"] = (config["vocab_size"], n)
    return result


def make(case: str) -> tuple[dict[str, Any], Weights, list[int]]:
    """(config.json, tensors, prompt) of a case.

    Uniform numbers of the legacy generator, whose stream NumPy has frozen. Spreads are such that attention is sharp
    and no layer drowns another: an error anywhere shows in the logits.
    """
    config = CASES[case]
    random = np.random.RandomState(int.from_bytes(hashlib.sha256(case.encode()).digest()[:4], "big"))
    weights: Weights = {}
    for name, shape in shapes(config).items():
        values = 2.0 * random.random_sample(shape) - 1.0
        if name.endswith("norm.weight"):
            values = 1.0 + 0.3 * values
        elif name.endswith(".bias"):
            values *= 0.5
        elif "embed_tokens" in name:
            values *= 0.5 if config["tie_word_embeddings"] else 1.0
        else:
            gain = 4.0 if ".q_proj" in name or ".k_proj" in name else 2.0
            values *= gain / np.sqrt(shape[1])
        weights[name] = values.astype(np.float32)
    prompt = [int(token) for token in random.randint(0, config["vocab_size"], POSITIONS)]
    return config, weights, prompt


def digest(case: str) -> str:
    """Fingerprint of everything that `make` returns."""
    config, weights, prompt = make(case)
    state = hashlib.sha256(json.dumps([config, prompt], sort_keys=True).encode())
    for name, values in weights.items():
        state.update(name.encode() + values.tobytes())
    return state.hexdigest()


def write(case: str, folder: Path) -> Path:
    """Write a case as a checkpoint folder, config.json and model.safetensors."""
    config, weights, _ = make(case)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in weights.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(values.tobytes() for values in weights.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder
