"""Real models, as imported and with the same weights in F32.

They are large, so tests only take what lies in the user's cache: `python tools/real_model.py smollm2 gemma3` fetches
them, as tools/test does.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exactness import write_exact

import edgeq
from edgeq.gguf.importer import import_gguf

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))

from real_model import MODELS, find  # noqa: E402


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
