"""Real models, as imported and with the same weights in F32.

They are large, so tests only take what lies in the user's cache: `python tools/real_model.py smollm2 gemma3` fetches
them, as tools/test does.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.gguf.importer import import_gguf

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))

from real_model import MODELS, find  # noqa: E402

RUN_BYTES = 8 << 20  # of f32 weights turned at a time


@dataclass(frozen=True)
class Real:
    """A model as it was imported, the same weights in F32, and what transformers computes with these."""

    imported: edgeq.Model
    exact: edgeq.Model
    golden: dict[str, Any]


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Real]:
    yield from _real("smollm2")


@pytest.fixture(scope="module")
def gemma3() -> Iterator[Real]:
    yield from _real("gemma3")


def _real(name: str) -> Iterator[Real]:
    source = find(name)
    if source is None:
        pytest.skip(f"{MODELS[name].path} is absent: python tools/real_model.py {name} fetches it")
    golden = json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text(encoding="utf-8"))
    assert golden["sha256"] == MODELS[name].sha256, "made from another file: run tools/make_real_golden.py"
    with tempfile.TemporaryDirectory() as folder:  # removed at once: an F32 file of a gigabyte is not to be kept
        imported, exact = Path(folder, "imported.eqf"), Path(folder, "exact.eqf")
        import_gguf(source, imported, threads=2)
        write_exact(imported, exact)
        with edgeq.load(imported, threads=2, context=1024) as one, edgeq.load(exact, threads=2, context=1024) as other:
            assert other.session.kv == "f32"
            yield Real(one, other, golden)


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
