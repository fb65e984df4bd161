"""Writes a Hugging Face checkpoint in BF16 for tools that make models of models."""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import to_plain
from edgeq.container.gguf_values import METADATA_ASSET
from edgeq.system.output import OutputFile, write_file

# (name, shape, its f32 values in pieces)
Weights = tuple[str, Sequence[int], Iterable[npt.NDArray[np.float32]]]


def write_bf16(out: Path, weights: Sequence[Weights], config: Mapping[str, Any], assets: Mapping[str, bytes]) -> None:
    """The folder `out` with weights, config.json, and the assets of an `.eqf` file that a checkpoint has."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _ in weights:
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.mkdir(parents=True, exist_ok=True)
    with OutputFile(out / "model.safetensors", 8 + len(text) + end) as file:
        file.put(struct.pack("<Q", len(text)) + text, 0)
        at = 8 + len(text)
        for _, _, pieces in weights:
            for piece in pieces:
                stored = to_plain(piece, "BF16").tobytes()
                file.put(stored, at)
                at += len(stored)
    for name in assets.keys() - {METADATA_ASSET, "config.json"}:
        write_file(out / name, assets[name])
    write_file(out / "config.json", json.dumps({**config, "torch_dtype": "bfloat16"}, indent=2).encode())
