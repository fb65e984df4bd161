"""F32 files give what transformers gives in float32: the same greedy text, and logits within 1e-3 at 256 positions."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MODELS = json.loads((GOLDEN / "manifest.json").read_text())["models"]


class Golden:
    """What transformers said of a model, and a session on edgeq's F32 file of it."""

    def __init__(self, name: str, session: Session):
        stored = np.load(GOLDEN / f"{name}.npz")
        self.tokens = stored["tokens"].astype(int).tolist()
        self.prompt = int(stored["prompt"])
        self.ids = stored["ids"].astype(np.int64)
        self.logits, self.logsumexp = stored["logits"], stored["logsumexp"]
        self.session = session

    def evaluate(self, tokens: list[int], all_logits: bool = False) -> np.ndarray:
        self.session.rewind(0)
        return self.session.eval(tokens, all_logits=all_logits)


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest, converted, tiny_model: Path) -> Iterator[Golden]:
    name = request.param
    folder = tiny_model if name == "tiny_model" else request.getfixturevalue("shared_data") / "models" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != MODELS[name]["sha256"]:
        pytest.fail(
            f"tests/golden/{name}.npz was made from other weights than {folder}/model.safetensors: "
            "run tools/make_golden.py"
        )
    with open_file(converted(folder, "F32")) as file, Session(file, context=256, threads=2) as session:
        yield Golden(name, session)


def test_greedy_text_is_the_same(golden: Golden) -> None:
    tokens = golden.tokens[: golden.prompt]
    row = golden.evaluate(tokens)
    while True:
        tokens = [*tokens, int(row[-1].argmax())]
        if len(tokens) == len(golden.tokens):
            break
        row = golden.session.eval(tokens[-1:])
    assert tokens == golden.tokens
    assert len(tokens) - golden.prompt == 200


def test_logits_are_the_same(golden: Golden) -> None:
    logits = golden.evaluate(golden.tokens, all_logits=True)
    assert logits.shape[0] == golden.ids.shape[0] == 256
    assert set(golden.ids.ravel()) == set(range(logits.shape[1])), "every token must have been compared somewhere"
    assert np.abs(np.take_along_axis(logits, golden.ids, axis=1) - golden.logits).max() <= 1e-3
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
    assert np.abs(total - golden.logsumexp).max() <= 1e-3
    assert (logits.argmax(axis=1) == golden.ids[:, 0]).mean() >= 0.99


def test_f16_cache_is_close(golden: Golden) -> None:
    """The cache that quantized files get by default."""
    exact = golden.evaluate(golden.tokens, all_logits=True)
    with Session(golden.session.file, context=256, threads=2, kv="f16") as session:
        rounded = session.eval(golden.tokens, all_logits=True)
    difference = np.abs(rounded - exact).max()
    assert 0 < difference < 0.05
