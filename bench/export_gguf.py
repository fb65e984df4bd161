"""Write a `.eqf` file's weights as a GGUF file that llama.cpp loads: the same blocks in GGUF's order, bit for bit.

    python bench/export_gguf.py model.eqf model.gguf

It is made to compare engines: it holds no tokenizer, so it is run by token ids. GGUF's k-quants need rows of a multiple
of 256 weights; with --fallback a matrix that GGUF cannot hold is encoded again in the type that llama.cpp's own
quantizer takes then, which has more bits (Q4_K becomes Q5_0), and the file no longer holds the same bits.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from edgeq.blocks.reference import decode, to_gguf
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.reader import File, TensorInfo, open_file
from edgeq.errors import EdgeqError, UnsupportedError

FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
CHUNK_ROWS = 4096  # rows re-ordered at a time, a multiple of a panel's


@dataclass(frozen=True)
class Target:
    """How a matrix is written: GGUF type and bytes of a row; `again` if it must be encoded anew for that."""

    type: str
    row_bytes: int
    again: bool = False


def target(info: TensorInfo, fallback: bool) -> Target:
    """UnsupportedError if GGUF cannot hold the matrix and `fallback` is off."""
    rows, cols = info.shape
    try:
        return Target(info.type, block_type(info.type).gguf_bytes(rows, cols) // rows)
    except UnsupportedError as error:
        if not fallback or info.type not in FALLBACKS:
            raise UnsupportedError(f"{info.name}: {error}") from None
    name = FALLBACKS[info.type]
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    return Target(name, cols // weights * nbytes, again=True)


def matrix(data: np.ndarray, info: TensorInfo, to: Target) -> Iterator[np.ndarray]:
    """u8 [rows, row_bytes] of the matrix in GGUF's layout, some rows at a time."""
    rows, cols = info.shape
    panel = block_type(info.type).panel_bytes(cols)
    for first in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - first)
        part = data[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
        if to.again:
            yield gguf.quants.quantize(decode(part, count, cols, info.type), gguf.GGMLQuantizationType[to.type])
        else:
            yield to_gguf(part, count, cols, info.type).reshape(count, to.row_bytes)


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k [heads * head_dim, ...] from halves (i, i + n / 2) to neighbours (2i, 2i + 1) of each head.

    llama.cpp's llama rotates neighbours, Hugging Face's halves.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def rotated_heads(config: dict[str, Any], architecture: str, name: str) -> int:
    """Heads of a tensor whose rows must be permuted; 0 for the others."""
    if architecture != "llama" or config.get("rope_interleaved"):
        return 0
    heads = config["num_attention_heads"]
    counts = {"attn_q": heads, "attn_k": config.get("num_key_value_heads") or heads}
    return int(next((count for part, count in counts.items() if f".{part}." in name), 0))


def add_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The hyperparameters that llama.cpp reads. UnsupportedError for what this script does not write."""
    if config.get("rope_scaling") or config.get("rope_parameters", {}).get("rope_type", "default") != "default":
        raise UnsupportedError("a model with rope scaling cannot be exported by this script")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_parameters", config).get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def export(source: Path, out: Path, fallback: bool = False) -> dict[str, Target]:
    """Write `out`; which types its matrices have. UnsupportedError for an architecture or rows GGUF cannot hold."""
    with open_file(source) as file:
        config, architecture = file.metadata["config"], file.metadata["architecture"]
        if architecture not in ("llama", "qwen2"):
            raise UnsupportedError(f"{source}: {architecture} is not exported; supported are llama and qwen2")
        targets = {i.name: target(i, fallback) for i in file.tensors.values() if len(i.shape) == 2}
        replace_by(out, lambda path: _write(file, path, config, architecture, targets))
        return targets


def replace_by(out: Path, write: Callable[[str], None]) -> None:
    """Write to a temporary file beside `out`, then rename it: `out` is never half written."""
    temporary = out.parent / f".{out.name}.{os.getpid()}"
    try:
        write(str(temporary))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: File, path: str, config: dict[str, Any], architecture: str, targets: dict[str, Target]) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer, config)
    for info in file.tensors.values():
        if to := targets.get(info.name):
            shape, kind = (info.shape[0], to.row_bytes), gguf.GGMLQuantizationType[to.type]
            writer.add_tensor_info(info.name, shape, np.dtype(np.uint8), shape[0] * shape[1], raw_dtype=kind)
        else:
            writer.add_tensor_info(info.name, info.shape, np.dtype(np.float32), info.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for info in file.tensors.values():
        data = file.data(info.name)
        if to := targets.get(info.name):
            rows = np.concatenate(list(matrix(data, info, to)))
        else:
            rows = data.view(np.float32)
        heads = rotated_heads(config, architecture, info.name)
        writer.write_tensor_data(interleaved(rows, heads) if heads else rows)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fallback", action="store_true", help="encode again what GGUF cannot hold")
    options = parser.parse_args()
    try:
        targets = export(options.source, options.out, options.fallback)
    except EdgeqError as error:
        sys.exit(f"{error}")
    again = sum(to.again for to in targets.values())
    print(f"{options.out}: {len(targets)} matrices, {again} of them encoded again")


if __name__ == "__main__":
    main()
