"""Small GGUF models with random blocks, written by the gguf package."""

from pathlib import Path
from typing import Any

import gguf
import gguf_oracle
import numpy as np

HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, VOCAB, LAYERS = 256, 512, 4, 2, 48, 2
HEAD_DIM = HIDDEN // HEADS


def shapes(tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of a small Llama, [outputs, inputs] for matrices."""
    kv = KV_HEADS * HEAD_DIM
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        found |= {
            f"blk.{i}.attn_norm.weight": (HIDDEN,),
            f"blk.{i}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.attn_k.weight": (kv, HIDDEN),
            f"blk.{i}.attn_v.weight": (kv, HIDDEN),
            f"blk.{i}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.ffn_norm.weight": (HIDDEN,),
            f"blk.{i}.ffn_gate.weight": (FEED_FORWARD, HIDDEN),
            f"blk.{i}.ffn_up.weight": (FEED_FORWARD, HIDDEN),
            f"blk.{i}.ffn_down.weight": (HIDDEN, FEED_FORWARD),
        }
    found["output_norm.weight"] = (HIDDEN,)
    return found if tied else found | {"output.weight": (VOCAB, HIDDEN)}


def random_tensor(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Random blocks of a type, all bit patterns of codes, scales that are small finite numbers."""
    if len(shape) == 1 or kind == "F32":
        return rng.normal(0, 0.05, shape).astype(np.float32)
    if kind == "F16":
        return rng.normal(0, 0.05, shape).astype(np.float16)
    columns, nbytes = gguf_oracle.sizes(kind)
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // columns, nbytes), np.uint8)
    zeros = np.zeros((len(blocks), columns), np.float32)
    if kind == "BF16":
        return (rng.normal(0, 0.05, shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    if kind == "TQ1_0":  # only bytes that ggml writes
        weights = rng.normal(0, 0.001, (shape[0], shape[1])).astype(np.float32)
        return gguf.quants.quantize(weights, gguf.GGMLQuantizationType.TQ1_0)
    places = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}
    places |= {
        "Q6_K": [208],
        "Q3_K": [108],
        "Q2_K": [80, 82],
        "IQ4_NL": [0],
        "IQ4_XS": [0],
        "TQ2_0": [64],
        "MXFP4": [],
        "NVFP4": [],
    }
    if kind == "IQ1_M":  # has its f16, here of 0.001, in four nibbles
        for i, nibble in enumerate((9, 1, 4, 1)):
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | nibble << 4
    places |= {
        "NVFP4": [],
        "Q2_0": [0],
        "Q1_0": [0],
        "IQ1_M": [],
        **{key: [0] for key in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")},
    }
    for place in places[kind]:
        small = rng.normal(0, 0.001, len(zeros)).astype(np.float16)
        blocks[:, place : place + 2] = small.view(np.uint8).reshape(-1, 2)
    if kind == "NVFP4":  # scales that are multiples of a unit
        blocks[:, :4] = rng.integers(0x28, 0x40, (len(blocks), 4))
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(110, 125, len(blocks))
    return blocks.reshape(shape[0], -1)


def write(
    path: Path,
    kinds: dict[str, str] | str,
    tied: bool = False,
    beside: dict[str, np.ndarray] | None = None,
    **metadata: Any,
) -> dict[str, np.ndarray]:
    """A Llama whose matrices have the type `kinds`, or that of their name's part, and `beside` them other tensors; its
    own tensors' bytes."""
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_string("general.name", "small")
    writer.add_array("someone.else", [[1, 2], [3]])
    writer.add_tokenizer_model("llama")
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", *(f"<extra_{i}>" for i in range(VOCAB - 8))]
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0, 0.0, 0.0, -5.0, -6.0, -7.0, -1.0, -2.0, *[-1000.0] * (VOCAB - 8)])
    writer.add_token_types([2, 3, 3, *[1] * 5, *[4] * (VOCAB - 8)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for key, value in metadata.items():
        writer.add_key_value(key, *value)
    tensors = {}
    for name, shape in shapes(tied).items():
        kind = kinds if isinstance(kinds, str) else kinds.get(name.split(".")[-2], "F32")
        data = tensors[name] = random_tensor(rng, shape, kind)
        raw = gguf_oracle.type_of(kind) if data.dtype == np.uint8 else None
        writer.add_tensor(name, data, raw_dtype=raw)
    for name, data in (beside or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
