"""GGUF files of what a model sees with, as llama.cpp's converter lays them out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write(path: Path, keys: Mapping[str, Any], tensors: Mapping[str, np.ndarray], most: int = 0) -> Path:
    """One with these keys and tensors; several of `most` tensors each, if that is not 0."""
    writer = gguf.GGUFWriter(path, "clip", split_max_tensors=most)
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
