"""Gemma 3 270M over a text longer than its sliding window of 512, as transformers computes it from the same weights."""

import numpy as np
import pytest
from conversation import CONTINUED, TEXT
from exactness import check_logits, divergence

import edgeq
from edgeq.runtime.session import Session


@pytest.fixture
def text(gemma3) -> list[int]:
    """The text's tokens."""
    tokens = gemma3.golden["tokens"]
    assert len(tokens) > 650
    return tokens


def logits_at(model: edgeq.Model, tokens: list[int], positions: list[int]) -> np.ndarray:
    """f32 [positions, vocabulary], each the last of a piece: those of all tokens would take 700 MB."""
    starts = [0, *(position + 1 for position in positions[:-1])]
    with Session(model.file, context=1024, threads=2) as session:
        return np.concatenate(
            [session.eval(tokens[start : end + 1]) for start, end in zip(starts, positions, strict=True)]
        )


def test_tokens_are_the_same(gemma3, text: list[int]):
    assert gemma3.exact.tokenizer.encode(TEXT) == text


def test_logits_within_and_beyond_the_window_are_the_same(gemma3, text: list[int]):
    positions = gemma3.golden["positions"]
    assert {511, 512, 513} < set(positions)
    check_logits(logits_at(gemma3.exact, text, positions), gemma3.golden)


def test_greedy_text_beyond_the_window_is_the_same(gemma3):
    assert "".join(gemma3.exact.generate(TEXT, CONTINUED, temperature=0)) == gemma3.golden["text"]
    assert gemma3.exact.timings.generated_tokens == len(gemma3.golden["following"])


def test_the_quantized_file_is_close(gemma3, text: list[int]):
    """Its weights are the same; its activations are rounded to 8 bits, and its keys and values to f16."""
    positions = gemma3.golden["positions"]
    exact, rounded = (logits_at(model, text, positions) for model in (gemma3.exact, gemma3.imported))
    assert 0 < divergence(exact, rounded).mean() < 0.004
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.9
    assert "".join(gemma3.imported.generate(TEXT, CONTINUED, temperature=0)) == gemma3.golden["text"]
