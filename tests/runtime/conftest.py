"""Converted files that several tests run."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeq.container.reader import File, open_file
from edgeq.quantize.pipeline import convert

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))  # random_checkpoints

import random_checkpoints

Convert = Callable[..., Path]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """`converted(checkpoint, type)`: the path of the file, made once."""
    folder = tmp_path_factory.mktemp("converted")

    def make(checkpoint: Path, type: str) -> Path:
        path = folder / f"{checkpoint.name}-{type}.eqf"
        if not path.exists():
            convert(checkpoint, path, type)
        return path

    return make


@pytest.fixture(scope="module")
def tiny(converted: Convert, tiny_model: Path) -> Iterator[Callable[[str], File]]:
    """`tiny(type)`: the bundled model as an open file of that type."""
    files: dict[str, File] = {}

    def get(type: str) -> File:
        if type not in files:
            files[type] = open_file(converted(tiny_model, type))
        return files[type]

    yield get
    for file in files.values():
        file.close()


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Callable[[str], File]]:
    """`opened(case)`: a random model as an open file of Q8_0, or the bundled one, of Q4_K_M."""
    files: dict[str, File] = {}

    def get(case: str) -> File:
        if case not in files:
            folder = tmp_path_factory.mktemp(case)
            checkpoint = tiny_model if case == "tiny" else random_checkpoints.write(case, folder)
            kind = "Q4_K_M" if case == "tiny" else "Q8_0"
            convert(checkpoint, folder / "m.eqf", kind, allow_no_tokenizer=case != "tiny")
            files[case] = open_file(folder / "m.eqf")
        return files[case]

    yield get
    for file in files.values():
        file.close()
