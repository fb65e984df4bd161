"""Random checkpoints, of which tests/golden has adapters, and files made of them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeq
from edgeq.engine.model import Model
from edgeq.quantize.pipeline import convert

sys.path += [str(Path(__file__).resolve().parents[1] / part) for part in ("models", "checkpoints")]

import random_checkpoints


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint(case)`: the folder of a random one, made once."""
    made: dict[str, Path] = {}

    def make(case: str) -> Path:
        if case not in made:
            made[case] = random_checkpoints.write(case, tmp_path_factory.mktemp(case) / case)
        return made[case]

    return make


@pytest.fixture(scope="session")
def file(checkpoint: Callable[[str], Path]) -> Callable[..., Path]:
    """`file(case, type)`: the `.eqf` file of a random checkpoint, made once."""

    def make(case: str, type: str = "F32") -> Path:
        path = checkpoint(case).parent / f"{type}.eqf"
        if not path.exists():
            convert(checkpoint(case), path, type, allow_no_tokenizer=True)
        return path

    return make


@pytest.fixture
def llama(file: Callable[..., Path]) -> Iterator[Model]:
    """The Llama in F32, without adapters."""
    with edgeq.load(file("llama"), threads=1) as model:
        yield model
