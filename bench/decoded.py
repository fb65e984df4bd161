"""The weights of a file just as it gives them, in F32: what its block types lose, whatever runs them."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.reader import File, TensorInfo, open_file
from edgeq.container.writer import TensorSpec, Writer

RUN_BYTES = 16 << 20  # of f32 weights held at a time


def write_decoded(source: Path, target: Path) -> None:
    """Write the `.eqf` file `source` as the `.eqf` file `target`, every matrix in F32."""
    with open_file(source) as file:
        specs = [TensorSpec(info.name, info.shape, "F32") for info in file.tensors.values()]
        metadata = dict(file.metadata)
        if "gguf" in metadata:  # the types that an export of an imported file goes back to
            metadata["gguf"] = {**metadata["gguf"], "types": {}}
        assets = {name: file.asset(name) for name in file.assets}
        with Writer(target, specs, metadata, assets, file.requires) as writer:
            for info in file.tensors.values():
                for data in _values(file, info):
                    writer.write(info.name, data)


def _values(file: File, info: TensorInfo) -> Iterator[npt.NDArray[np.uint8]]:
    """The tensor's bytes in F32, some panels of a matrix at a time, one matrix after the other."""
    data = file.data(info.name)
    if len(info.shape) == 1:
        yield data
        return
    rows, columns = info.shape[-2:]
    panel = block_type(info.type).panel_bytes(columns)
    step = max(RUN_BYTES // (4 * columns * PANEL_ROWS), 1) * PANEL_ROWS
    for matrix in data.reshape(prod(info.shape[:-2]), -1):
        for first in range(0, rows, step):
            count = min(step, rows - first)
            part = matrix[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
            yield encode(decode(part, count, columns, info.type), "F32")
