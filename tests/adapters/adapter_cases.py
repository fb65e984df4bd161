"""Small adapters of the random checkpoints, which tools/make_adapters.py makes with peft: what is particular of each.

Also how GGUF's adapters are written of PEFT's, for tests.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TOKENS = 16  # of a checkpoint's prompt


class Case(NamedTuple):
    """An adapter of the random checkpoint `checkpoint`, and what peft's LoraConfig is told of it."""

    checkpoint: str
    config: dict[str, Any]


CASES = {
    "llama": Case("llama", {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"}),
    "llama-rslora": Case(
        "llama", {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "use_rslora": True}
    ),
    "qwen2-tied-head": Case(
        "qwen2",
        {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": ["k_proj", "down_proj", "lm_head"],
            "rank_pattern": {"down_proj": 1},
            "alpha_pattern": {r"layers\.1\..*k_proj": 8},
        },
    ),
    "phi3": Case("phi3", {"r": 2, "lora_alpha": 2, "target_modules": ["qkv_proj", "gate_up_proj", "o_proj"]}),
    "gpt2": Case("gpt2", {"r": 2, "lora_alpha": 4, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
}
BOTH = ("llama", 0.5), ("llama-rslora", -1.5)  # two of one checkpoint, with scales


def folder(case: str) -> Path:
    """The adapter, as peft has saved it."""
    return GOLDEN / "adapters" / case


def logits(case: str) -> np.ndarray:
    """f32 [TOKENS, vocabulary] of the checkpoint with the adapter, or with BOTH ("both"), as transformers and peft
    compute them."""
    found: np.ndarray = np.load(GOLDEN / "adapters.npz")[case]
    return found


def as_gguf(path: Path, case: str, architecture: str, names: dict[str, str], heads: dict[str, int]) -> Path:
    """The adapter as llama.cpp's convert_lora_to_gguf.py writes it: `names` of modules there, by their ends here;
    `heads` of the rows of modules that are re-ordered, see `permuted`."""
    import gguf

    config = json.loads((folder(case) / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    for name, matrix in load_file(folder(case) / "adapter_model.safetensors").items():
        module, _, which = name.removesuffix(".weight").rpartition(".lora_")
        parts = module.split(".")
        layer, end = parts[next(i for i, part in enumerate(parts) if part.isdigit())], parts[-1]
        count = heads.get(end, 0)
        data = permuted(matrix, count) if count and which == "B" else matrix
        writer.add_tensor(f"blk.{layer}.{names[end]}.weight.lora_{which.lower()}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's converter orders those of a Llama."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


LLAMA = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "qkv_proj": "attn_qkv",
    "gate_up_proj": "ffn_up",
}
