"""Small random checkpoints, one per architectural feature, that every machine makes alike from a seed.

Needs NumPy and edgeq's models: tools/make_golden.py makes the same ones for transformers, whose logits the tests
compare with.
"""

import hashlib
import json
import struct
from collections import ChainMap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from architecture_cases import CASES, FILES
from encoder_cases import CLASSIFIERS, ENCODERS, WITHOUT_CLASS

from edgeq.models import architecture

POSITIONS = 64  # tokens of a case's prompt
CONTINUED = 16  # tokens that follow it greedily
EMBEDDINGS = (
    "embed_tokens",
    "wte",
    "wpe",
    "embed_positions",
    "tokens_embed",
    "positions_embed",
    "embed_in",
    "word_embeddings",
    "tok_embeddings",
    "rel_embeddings",
)
QUERIES_AND_KEYS = (
    ".q_proj",
    "query_proj",
    ".q_b_proj",
    ".k_proj",
    "key_proj",
    "qkv",
    "query_key",
    "c_attn",
    "self.query.",
    "self.key.",
    ".q_lin",
    ".k_lin",
)
ROUTERS = (".gate.weight", ".gate.wg.", ".router.", ".primary_router.")
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Weights = dict[str, npt.NDArray[np.float32]]


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor under its Hugging Face name.

    Llama's and its next of kin's are listed here. Of other architectures they are what edgeq asks a checkpoint for:
    tools/make_golden.py makes sure that transformers asks for just the same.
    """
    if config["model_type"] not in ("llama", "mistral", "qwen2") or "id2label" in config:
        tensors = architecture(config).tensors
        parts = [part for name in sorted(tensors) for part in tensors[name].parts]
        return {source: shape for part in parts for source, shape in part.needs.items()}
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
    config = (CASES | ENCODERS | CLASSIFIERS | WITHOUT_CLASS)[case]
    random = np.random.RandomState(int.from_bytes(hashlib.sha256(case.encode()).digest()[:4], "big"))
    weights: Weights = {}
    for name, shape in shapes(config).items():
        values = 2.0 * random.random_sample(shape) - 1.0
        if not shape:  # xIELU's
            values = np.asarray(0.1 * values - 0.2)
        elif name.endswith("norm.weight") or (len(shape) == 1 and name.endswith(".weight")):
            newer = config["model_type"] in ("gemma3n_text", "gemma4_text")
            older = config["model_type"].startswith("gemma") and not newer
            values = 0.3 * values + (0.0 if older else 1.0)
        elif name.endswith("modality_router.weight"):  # of normed rows, divided by their width
            values *= np.sqrt(shape[1])
        elif name.endswith(("prediction_coefs.weight", "correction_coefs.weight")):
            values *= 0.5
        elif name.endswith(("layer_scalar", "router.per_expert_scale", "correct_output_scale")):
            values = 0.3 * values + 1.0
        elif name.endswith("router.scale"):
            values = (0.3 * values + 1.0) * shape[0] ** 0.5
        elif name.endswith(("e_score_correction_bias", "expert_bias")):  # beside parts of a whole
            values *= 0.05
        elif ".attn.x_" in name or name.endswith(".ffn.x_k"):  # RWKV-7's: parts of the way to the row before
            values = 0.6 * values + 0.4
        elif name.endswith(("attn.k_k", "attn.k_a", "attn.r_k")):
            values = 0.5 * values + 0.7
        elif name.endswith("w_lora.lora.2.bias"):  # keys that forget at once, and others that hardly do
            values = 4.0 * values - 2.0
        elif name.endswith(".bias"):
            values *= 0.5
        elif "shared_transformer" in name and len(shape) == 2:  # added to one another
            values *= 1.0 / np.sqrt(shape[-1])
        elif any(part in name for part in EMBEDDINGS):
            values *= 0.5 if config.get("tie_word_embeddings", True) else 1.0
        elif any(part in name for part in ROUTERS) and ".experts." not in name:  # choices that rounding does not change
            values *= 8.0 / np.sqrt(shape[1])
        else:
            gain = 4.0 if any(part in name for part in QUERIES_AND_KEYS) else 2.0
            values *= gain / np.sqrt(shape[-1])
        weights[name] = values.astype(np.float32)
    prompt = [int(token) for token in random.randint(0, config["vocab_size"], POSITIONS)]
    return config, weights, prompt


def types(case: str) -> list[int]:
    """Of the prompt's tokens as two texts, which each is of."""
    first = 20 + len(case)
    return [0] * first + [1] * (POSITIONS - first)


def continued(case: str) -> int:
    """Tokens that follow the prompt greedily, at most: learned positions end, and a dynamic rotary embedding is another
    one for each length in transformers, the session's here."""
    if CASES[case]["model_type"] in ("gpt2", "gpt_bigcode", "opt"):
        return int(CASES[case].get("n_positions") or CASES[case]["max_position_embeddings"]) - POSITIONS
    return 0 if case == "llama-rope-dynamic-beyond" else CONTINUED


def golden() -> ChainMap[str, npt.NDArray[Any]]:
    """What transformers computes of every case, and the tokens that follow it greedily (`CASE greedy`)."""
    return ChainMap(*(np.load(GOLDEN / f"{name}.npz") for name in FILES))


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
    return write_weights(config, weights, folder)


def write_weights(config: dict[str, Any], weights: Weights, folder: Path) -> Path:
    """Write a checkpoint folder of these."""
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
