"""The small sound files that changes begin with: made here, so that nothing need be fetched or kept."""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.text.gguf_tokenizer import tokenizer_assets
from edgeq.text.piece_bytes import byte_level_bytes
from edgeq.text.protobuf import message, number
from edgeq.text.world import vocabulary

HIDDEN, FEED_FORWARD, HEADS, LAYERS = 32, 64, 2, 2
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 260,
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}<|im_start|>user\n"
    "{{ message['content'] | trim }}<|im_end|>\n{% else %}{{ message.role }}: {{ message.content }}\n{% endif %}"
    "{% endfor %}{% set ns = namespace(n=0) %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, by its name in a checkpoint."""
    kv = HIDDEN // HEADS
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (260, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        found |= {f"{at}{norm}.weight": (HIDDEN,) for norm in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"{at}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qo"}
        found |= {f"{at}self_attn.{part}_proj.weight": (kv, HIDDEN) for part in "kv"}
        found |= {f"{at}mlp.{part}_proj.weight": (FEED_FORWARD, HIDDEN) for part in ("gate", "up")}
        found |= {f"{at}mlp.down_proj.weight": (HIDDEN, FEED_FORWARD)}
    return found


def weights() -> dict[str, np.ndarray]:
    """Random ones."""
    rng = np.random.default_rng(3)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes().items()}


def safetensors(tensors: dict[str, np.ndarray] | None = None) -> bytes:
    """The model's weights, or others."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in (tensors or weights()).items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def torch() -> bytes:
    """The first of them as PyTorch writes them."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    out, pickled = io.BytesIO(), b"\x80\x02}("
    with zipfile.ZipFile(out, "w") as archive:
        for i, (name, array) in enumerate(list(weights().items())[:4]):
            place = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(i)) + text("cpu")
            place += b"J" + struct.pack("<i", array.size) + b"tQ"
            strides = tuple(stride // 4 for stride in array.strides)
            pickled += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + b"K\0" + numbers(array.shape)
            pickled += numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
            archive.writestr(zipfile.ZipInfo(f"archive/data/{i}"), array.tobytes())
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickled + b"u.")
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), b"little")
    return out.getvalue()


def tokenizer_json() -> bytes:
    """Byte-level BPE with a merge and some added tokens."""
    vocab = {chr(i): byte[0] for i in range(33, 324) if len(byte := byte_level_bytes(chr(i))) == 1}
    added = [
        {"id": 256, "content": "<s>"},
        {"id": 257, "content": "<|im_end|>"},
        {"id": 258, "content": "<|im_start|>"},
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{**one, **flags} for one in added],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {**vocab, "ab": 259},
                "merges": [["a", "b"]],
            },
        }
    ).encode()


def tokenizer_config() -> bytes:
    """Its surroundings."""
    return json.dumps(
        {
            "bos_token": "<s>",
            "eos_token": "<|im_end|>",
            "add_bos_token": True,
            "chat_template": TEMPLATE,
            "added_tokens_decoder": {"258": {"content": "<|im_start|>", "special": True}},
        }
    ).encode()


def tokenizer_model() -> bytes:
    """A small sentencepiece model."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    types = [2, 3, 3, *[6] * 256, 1]
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "token_type": types,
        "scores": [float(-i) for i in range(len(tokens))],
    }
    return tokenizer_assets({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, "seed")[
        "tokenizer.model"
    ]


def spm_model() -> bytes:
    """A small sentencepiece model of DeBERTa's kind."""
    pieces = [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2), ("▁", 1), ("▁a", 1), ("b", 1)]
    written = (message(1, text.encode()) + b"\x15" + struct.pack("<f", -1.0) + number(3, kind) for text, kind in pieces)
    return b"".join(message(1, one) for one in written) + message(2, number(3, 1))


def world() -> bytes:
    """A small vocabulary of RWKV's kind."""
    pieces = [*(bytes([b]) for b in range(256)), b"\n\n", b"ab", b"abcd", "日".encode(), b"\xe6\x97"]
    return vocabulary(dict(enumerate(pieces, 1)))


def checkpoint(folder: Path, words: bool) -> Path:
    """The model as a folder."""
    folder.mkdir(exist_ok=True)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors()}
    if words:
        files |= {"tokenizer.json": tokenizer_json(), "tokenizer_config.json": tokenizer_config()}
    else:
        files["tokenizer.model"] = tokenizer_model()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def eqf(folder: Path, kind: str = "Q8_0", words: bool = True) -> Path:
    """The model converted, with a tokenizer of words or of sentences."""
    from edgeq.conversion.conversion import convert

    target = folder / f"{kind}-{words}.eqf"
    if not target.exists():
        convert(checkpoint(folder / f"checkpoint-{words}", words), target, kind, threads=1)
    return target


def gguf(folder: Path, words: bool = True) -> Path:
    """The model as a GGUF file."""
    from edgeq.gguf.exporter import export_gguf

    target = folder / f"model-{words}.gguf"
    if not target.exists():
        export_gguf(eqf(folder, words=words), target)
    return target


def configuration() -> bytes:
    """A configuration with keys of many architectures."""
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 4.0}
    scaling |= {"original_max_position_embeddings": 32, "attention_factor": 1.1, "low_freq_factor": 1.0}
    more: dict[str, Any] = {"rope_scaling": scaling, "head_dim": 16, "sliding_window": 16, "hidden_act": "silu"}
    more |= {"layer_types": ["full_attention"] * LAYERS, "num_experts": 4, "num_local_experts": 4, "logit_scale": 0.5}
    more |= {
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "attention_bias": False,
        "partial_rotary_factor": 0.5,
    }
    more |= {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 1e-5, "n_inner": 64}
    more |= {"layer_norm_eps": 1e-5, "norm_eps": 1e-5, "query_pre_attn_scalar": 16, "final_logit_softcapping": 30.0}
    more |= {"type_vocab_size": 2, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "conv_L_cache": 3}
    more |= {"quantization_config": None, "torch_dtype": "float32", "architectures": ["LlamaForCausalLM"]}
    return json.dumps(CONFIG | more).encode()


def kernels() -> bytes:
    """A file of kernels whose code only returns."""
    from edgeq.toolchain import image

    return image.render("x86_64", "host", ("avx2",), "avx2", "0" * 16, {"norm": 0, "rope:F32": 16}, b"\xc3" * 4096)
