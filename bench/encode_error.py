"""Rounding error and speed of the encoders, edgeq beside llama.cpp, on the same rows.

    python bench/encode_error.py [checkpoint.safetensors ...]

Error is the RMS of decoded minus source weights over the RMS of the source, both encoders' bytes decoded by
`edgeq.blocks.reference`. Speed is source f32 bytes per second on one thread, the best of three. llama.cpp's encoder is
`ggml_quantize_chunk` of the ggml library in an installed `llama_cpp` package (without an importance matrix), or of the
library that --ggml names.
"""

import argparse
import ctypes
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import script
from safetensors import SafetensorError
from safetensors.numpy import load_file

from edgeq.blocks.reference import decode, from_gguf
from edgeq.blocks.table import BLOCK_TYPES, BlockType
from edgeq.errors import CheckpointError
from edgeq.kernels.encode_api import encode_panels

Encoder = Callable[[np.ndarray, BlockType], np.ndarray]


def gaussian_rows() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((256, 1024), dtype=np.float32)


def checkpoint_rows(path: Path) -> np.ndarray:
    """Up to 1024 rows of 256 weights: the matrices of a checkpoint in the order of their names, end to end."""
    try:
        matrices = [tensor for _, tensor in sorted(load_file(path).items()) if tensor.ndim == 2]
    except SafetensorError as error:
        raise CheckpointError(f"{path}: is not a safetensors file ({error}): give another one") from None
    if not matrices:
        raise CheckpointError(f"{path}: has no matrix: give another file")
    flat = [m.astype(np.float32).reshape(-1)[: m.size // 256 * 256].reshape(-1, 256) for m in matrices]
    return np.ascontiguousarray(np.concatenate(flat)[:1024])


def relative_error(source: np.ndarray, decoded: np.ndarray) -> float:
    exact = source.astype(np.float64)
    return float(np.sqrt(np.mean((decoded - exact) ** 2) / np.mean(exact**2)))


def find_ggml() -> Path | None:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "lib").glob("libggml-base*"))), None)


def llama_encoder(library: Path) -> Encoder:
    """GGUF blocks by llama.cpp, given as panels' source."""
    function = ctypes.CDLL(str(library)).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def encode(weights: np.ndarray, bt: BlockType) -> np.ndarray:
        rows, cols = weights.shape
        blocks = np.zeros(bt.gguf_bytes(rows, cols), np.uint8)
        function(bt.gguf_id, weights.ctypes.data, blocks.ctypes.data, 0, rows, cols, None)
        return blocks

    return encode


def best_rate(encode: Encoder, weights: np.ndarray, bt: BlockType) -> float:
    """MB/s of f32 source, the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        encode(weights, bt)
        times.append(time.perf_counter() - start)
    return weights.nbytes / min(times) / 1e6


def lines(weights: np.ndarray, llama: Encoder | None) -> Iterator[str]:
    rows, cols = weights.shape
    ours: Encoder = lambda x, bt: encode_panels(x, bt.name)  # noqa: E731
    for bt in BLOCK_TYPES.values():
        if not bt.quantized:
            continue
        error = relative_error(weights, decode(ours(weights, bt), rows, cols, bt.name))
        text = f"  {bt.name:<5} edgeq {error:.5f} {best_rate(ours, weights, bt):7.0f} MB/s"
        if llama is not None and bt.gguf_id is not None:
            panels = from_gguf(llama(weights, bt), rows, cols, bt.name)
            theirs = relative_error(weights, decode(panels, rows, cols, bt.name))
            text += f"   llama.cpp {theirs:.5f} {best_rate(llama, weights, bt):7.0f} MB/s"
            text += f"   error {100 * (error / theirs - 1):+.1f} %"
        yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", type=script.file)
    parser.add_argument("--ggml", type=script.file, help="llama.cpp's libggml-base")
    options = parser.parse_args()
    library = options.ggml or find_ggml()
    if library is None:
        print("llama.cpp not found (no llama_cpp package, no --ggml): edgeq alone")
    llama = llama_encoder(library) if library else None
    print("gaussian, 256 x 1024")
    print(*lines(gaussian_rows(), llama), sep="\n")
    for path in options.checkpoints:
        weights = checkpoint_rows(path)
        print(f"{path.parent.name}/{path.name}, {weights.shape[0]} x {weights.shape[1]}")
        print(*lines(weights, llama), sep="\n")


if __name__ == "__main__":
    script.run(main)
