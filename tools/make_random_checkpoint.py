#!/usr/bin/env python3
"""Write a Hugging Face checkpoint of a well-known model's shape with random weights.

Speed, memory and file sizes do not depend on what the weights are, so such a checkpoint stands for the real one in
measurements. It has a working byte-level tokenizer with a chat template, padded with unused tokens to the model's
vocabulary.

    python tools/make_random_checkpoint.py --shape tinyllama-1.1b --out /data/tinyllama
"""

import argparse
import json
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 22  # weights drawn at a time
DTYPES = {"bf16": ("BF16", "bfloat16", 2), "f16": ("F16", "float16", 2), "f32": ("F32", "float32", 4)}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

SHAPES: dict[str, dict[str, Any]] = {
    "llama-tiny-test": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "tinyllama-1.1b": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "qwen2.5-1.5b": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "llama-3.2-1b": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "qwen3.5-0.8b": {
        "model_type": "qwen3_5_text",
        "architectures": ["Qwen3_5ForCausalLM"],
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_num_value_heads": 16,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
        "vocab_size": 248320,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
        "tie_word_embeddings": True,
    },
    "granite-4.0-h-1b": {
        "model_type": "granitemoehybrid",
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "hidden_size": 1536,
        "intermediate_size": 512,
        "shared_intermediate_size": 4096,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "num_hidden_layers": 40,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "layer_types": ["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)],
        "mamba_n_heads": 48,
        "mamba_d_head": 64,
        "mamba_n_groups": 1,
        "mamba_d_state": 128,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "position_embedding_type": "nope",
        "attention_multiplier": 0.0078125,
        "embedding_multiplier": 12.0,
        "logits_scaling": 6.0,
        "residual_multiplier": 0.22,
        "vocab_size": 100352,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
}


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint under its Hugging Face name; of models other than Llama and its next of kin they
    are what edgeq asks for."""
    if config["model_type"] not in ("llama", "qwen2"):
        from edgeq.models import architecture

        tensors = architecture(config).tensors.values()
        return {part.source: part.shape for tensor in tensors for part in tensor.parts}
    n, m = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", n // config["num_attention_heads"])
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], n)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (n,)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{layer}.self_attn.{part}_proj.weight"] = (rows, n)
            if config["model_type"] == "qwen2":
                shapes[f"{layer}.self_attn.{part}_proj.bias"] = (rows,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (n, q)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (n,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (m, n)
        shapes[f"{layer}.mlp.up_proj.weight"] = (m, n)
        shapes[f"{layer}.mlp.down_proj.weight"] = (n, m)
    shapes["model.norm.weight"] = (n,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], n)
    return shapes


def stored(weights: np.ndarray, dtype: str) -> np.ndarray:
    """f32 weights as the bytes of `dtype`; bf16 rounds to nearest even."""
    if dtype == "F32":
        return weights
    if dtype == "F16":
        return weights.astype(np.float16)
    bits = weights.view(np.uint32)
    bits += 0x7FFF + (bits >> 16 & 1)
    return weights.view(np.uint16)[1::2]


def values(shape: tuple[int, ...], name: str, seed: np.random.SeedSequence, dtype: str) -> Iterator[bytes]:
    """The tensor's bytes in chunks: norms are 1, biases and weights normal with standard deviation 0.02."""
    rng = np.random.Generator(np.random.SFC64(seed))
    for start in range(0, prod(shape), CHUNK):
        count = min(CHUNK, prod(shape) - start)
        if "norm" in name:
            weights = np.ones(count, np.float32)
        else:
            weights = rng.standard_normal(count, np.float32)
            weights *= np.float32(0.02)
        yield stored(weights, dtype).tobytes()


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], seeds: dict[str, Any], dtype: str) -> int:
    """One safetensors file, streamed; returns the bytes of its tensors."""
    code, _, element_bytes = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * element_bytes
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            for chunk in values(shape, name, seeds[name], code):
                file.write(chunk)
    return end


def write_weights(folder: Path, shapes: dict[str, tuple[int, ...]], seed: int, dtype: str, shards: int) -> None:
    """One file, or `shards` files of about the same size with their index; the values do not depend on `shards`."""
    children = np.random.SeedSequence(seed).spawn(len(shapes))
    seeds = dict(zip(shapes, children, strict=True))
    total = sum(prod(shape) for shape in shapes.values())
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(shards)]
    before = 0
    for name, shape in shapes.items():
        parts[min(before * shards // total, shards - 1)][name] = shape
        before += prod(shape)
    parts = [part for part in parts if part]
    files = [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    if len(parts) == 1:
        files = ["model.safetensors"]
    with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(lambda fp: write_safetensors(folder / fp[0], fp[1], seeds, dtype), zip(files, parts)))  # noqa: B905
    if len(parts) > 1:
        places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 is itself, the rest follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins, extra = [], 0
    for byte in range(256):
        stand_ins.append(chr(byte if byte in printable else 0x100 + extra))
        extra += byte not in printable
    return stand_ins


def write_tokenizer(folder: Path, vocab_size: int) -> dict[str, int]:
    """A byte-level BPE tokenizer without merges; returns the ids of its special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokens = special + byte_alphabet()
    tokens += [f"<unused{i}>" for i in range(vocab_size - len(tokens))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    return {token: i for i, token in enumerate(special)}


def make(folder: Path, shape: str, seed: int = 0, dtype: str = "bf16", shards: int = 1, tokenizer: bool = True) -> None:
    """Write the checkpoint `shape` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**SHAPES[shape], "hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02}
    config |= {"torch_dtype": DTYPES[dtype][1], "use_cache": True}
    if tokenizer:
        ids = write_tokenizer(folder, config["vocab_size"])
        ends = {"bos_token_id": ids["<s>"], "eos_token_id": ids["<|im_end|>"]}
        config |= ends
        (folder / "generation_config.json").write_text(json.dumps(ends, indent=1))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_weights(folder, tensor_shapes(config), seed, dtype, shards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--shards", type=int, default=1, help="number of weight files")
    parser.add_argument("--no-tokenizer", action="store_true")
    arguments = parser.parse_args()
    make(arguments.out, arguments.shape, arguments.seed, arguments.dtype, arguments.shards, not arguments.no_tokenizer)


if __name__ == "__main__":
    main()
