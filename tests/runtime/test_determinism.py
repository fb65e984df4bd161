"""The same bits for any number of threads, any split of the prompt, any batch size, and any instruction set body."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import File
from edgeq.runtime.session import Session
from edgeq.simd import isa

PROMPT = np.random.RandomState(3).randint(1, 2048, 61).tolist()
TYPES = ["Q4_K_M", "Q8_0", "Q6_K", "F32"]

EVALUATE = """
import sys
import numpy as np
from edgeq.container.reader import open_file
from edgeq.runtime.session import Session

with open_file(sys.argv[1]) as file, Session(file, context=64, threads=2) as session:
    logits = session.eval([int(token) for token in sys.argv[3].split(",")], all_logits=True)
    last = session.eval([5])
np.save(sys.argv[2], np.concatenate([logits, last]))
"""


def evaluated(file: File, chunks: list[list[int]], **options: object) -> np.ndarray:
    """Logits of every token, the chunks given one after the other."""
    with Session(file, context=64, **options) as session:
        return np.concatenate([session.eval(chunk, all_logits=True) for chunk in chunks])


def chunked(size: int) -> list[list[int]]:
    return [PROMPT[first : first + size] for first in range(0, len(PROMPT), size)]


@pytest.fixture(scope="module", params=TYPES)
def whole(request: pytest.FixtureRequest, tiny: Callable[[str], File]) -> tuple[File, np.ndarray]:
    """A file, and the prompt's logits evaluated at once on one thread."""
    file = tiny(request.param)
    return file, evaluated(file, [PROMPT], threads=1)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads(whole: tuple[File, np.ndarray], threads: int) -> None:
    file, expected = whole
    assert np.array_equal(evaluated(file, [PROMPT], threads=threads), expected)
    assert np.array_equal(evaluated(file, chunked(1), threads=threads), expected)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33])
def test_chunks(whole: tuple[File, np.ndarray], size: int) -> None:
    file, expected = whole
    assert np.array_equal(evaluated(file, chunked(size), threads=2), expected)


@pytest.mark.parametrize("batch", [1, 5, 48])
def test_batches(whole: tuple[File, np.ndarray], batch: int) -> None:
    """Logits of the last token alone go through batches of up to `batch` tokens."""
    file, expected = whole
    with Session(file, context=64, threads=2, batch=batch) as session:
        assert np.array_equal(session.eval(PROMPT), expected[-1:])


def test_repeated(whole: tuple[File, np.ndarray]) -> None:
    """Nothing is left of an earlier, longer text: neither in the cache nor in the buffers."""
    file, expected = whole
    with Session(file, context=64, threads=2) as session:
        for _ in range(3):
            session.eval([7] * 64)
            session.rewind(0)
            assert np.array_equal(session.eval(PROMPT[:17], all_logits=True), expected[:17])
            session.rewind(9)
            assert np.array_equal(session.eval(PROMPT[9:], all_logits=True), expected[9:])
            session.rewind(0)


def test_long_context(tiny: Callable[[str], File]) -> None:
    """Past one matmul chunk and several attention panels."""
    prompt = np.random.RandomState(4).randint(1, 2048, 300).tolist()
    results = []
    for threads, step in ((1, 300), (2, 128), (3, 11)):
        with Session(tiny("Q4_K_M"), context=304, threads=threads) as session:
            results.append([session.eval(prompt[first : first + step]) for first in range(0, 300, step)][-1])
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


@pytest.mark.parametrize("type", TYPES)
def test_instruction_set_bodies(
    type: str, tiny: Callable[[str], File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every body that this CPU can run, each in a process of its own."""
    bodies = [row.name for row in isa.available()]
    results = []
    for body in bodies:
        monkeypatch.setenv("EDGEQ_ISA", body)
        out = tmp_path / f"{body}.npy"
        prompt = ",".join(str(token) for token in PROMPT[:11])
        subprocess.run([sys.executable, "-c", EVALUATE, tiny(type).path, str(out), prompt], check=True, timeout=300)
        results.append(np.load(out))
    if len(bodies) == 1:
        pytest.skip(f"this CPU can run {bodies[0]} only")
    for body, result in zip(bodies[1:], results[1:], strict=True):
        assert np.array_equal(results[0], result), f"{body} differs from {bodies[0]}"
