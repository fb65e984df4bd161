"""Quantization's loss on the bundled model stays below the bars that bench/quality.py measures over more text."""

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "bench"))
import quality  # noqa: E402

HELD_OUT_FROM = 1_478_370  # see tools/tiny_model/README.md
TOKENS = 3072
MEAN_KL = {"Q8_0": 0.001, "Q6_K": 0.005, "Q4_K_M": 0.05}


@pytest.fixture(scope="module")
def rows(shared_data: Path, tiny_model: Path) -> dict[str, dict[str, float]]:
    path = shared_data / "text" / "tinystories" / "tinystories_val.txt"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    text = path.read_bytes()[HELD_OUT_FROM:].decode()
    return {row["type"]: row for row in quality.measure(tiny_model, text, list(MEAN_KL), TOKENS, threads=2)}


@pytest.mark.parametrize("type", MEAN_KL)
def test_the_bars(rows: dict[str, dict[str, float]], type: str) -> None:
    assert rows[type]["tokens"] == TOKENS
    assert 0 < rows[type]["mean_kl"] <= MEAN_KL[type]
    assert rows[type]["perplexity"] < rows["F32"]["perplexity"] * (1 + 2 * MEAN_KL[type])


def test_f32_is_itself(rows: dict[str, dict[str, float]]) -> None:
    assert rows["F32"]["mean_kl"] == 0
    assert rows["F32"]["top1_agreement"] == 1


def test_more_bits_lose_less(rows: dict[str, dict[str, float]]) -> None:
    assert rows["Q8_0"]["mean_kl"] < rows["Q6_K"]["mean_kl"] < rows["Q4_K_M"]["mean_kl"]
    assert rows["Q8_0"]["bits_per_weight"] > rows["Q6_K"]["bits_per_weight"] > rows["Q4_K_M"]["bits_per_weight"]
