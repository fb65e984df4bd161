"""The same weights in F32, and how near logits lie to others."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer

RUN_BYTES = 8 << 20  # of f32 weights turned at a time


def write_exact(source: Path, target: Path) -> None:
    """The same weights with every matrix in F32."""
    with open_file(source) as file:
        specs = [TensorSpec(info.name, info.shape, "F32") for info in file.tensors.values()]
        metadata = {name: value for name, value in file.metadata.items() if name != "gguf"}
        assets = {name: file.asset(name) for name in file.assets}
        with Writer(target, specs, metadata, assets) as writer, ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda spec: _write_tensor(file, spec, writer), specs))


def _write_tensor(file: File, spec: TensorSpec, writer: Writer) -> None:
    data, kind = file.data(spec.name), file.tensors[spec.name].type
    if len(spec.shape) == 1:
        writer.write(spec.name, data)
        return
    rows, columns = spec.shape
    panel = block_type(kind).panel_bytes(columns)
    step = max(RUN_BYTES // (4 * columns * PANEL_ROWS), 1) * PANEL_ROWS
    for first in range(0, rows, step):
        part = data[first // PANEL_ROWS * panel : -(-min(first + step, rows) // PANEL_ROWS) * panel]
        writer.write(spec.name, encode(decode(part, min(step, rows - first), columns, kind), "F32"))


def check_logits(rows: np.ndarray, golden: dict[str, Any]) -> None:
    """Logits f32 [positions, vocabulary] are within 1e-3 of those that were kept of the same positions."""
    assert np.abs(np.take_along_axis(rows, np.array(golden["ids"]), axis=1) - golden["logits"]).max() <= 1e-3
    assert np.abs(logsumexp(rows) - golden["logsumexp"]).max() <= 1e-3
    assert rows.argmax(axis=1).tolist() == [ids[0] for ids in golden["ids"]]


def divergence(exact: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL divergence f64 [positions], in nats, of what other logits predict from what exact ones do."""
    first, second = (rows.astype(np.float64) - logsumexp(rows)[:, None] for rows in (exact, other))
    result: np.ndarray = (np.exp(first) * (first - second)).sum(axis=1)
    return result


def logsumexp(rows: np.ndarray) -> np.ndarray:
    """f64 [positions]."""
    wide = rows.astype(np.float64)
    top = wide.max(axis=1)
    result: np.ndarray = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
    return result
