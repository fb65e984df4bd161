"""What GGUF says of SmallThinker's layers, and what it cannot."""

from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
from architecture_cases import CASES

from edgeq.conversion.conversion import convert
from edgeq.errors import UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.models.gguf_smallthinker import read


@pytest.mark.parametrize(
    ("values", "local", "rotated"),
    [
        ({}, [0] * 6, [1] * 6),  # as the 4B's files are
        ({"attention.sliding_window": 0}, [0] * 6, [1] * 6),
        ({"attention.sliding_window": 4096}, [0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1]),  # the 21B's
        ({"attention.sliding_window": 4096, "attention.sliding_window_pattern": 2}, [0, 1] * 3, [0, 1, 1, 1, 0, 1]),
        (
            {"attention.sliding_window": 4096, "attention.sliding_window_pattern": [True] * 6},
            [1] * 6,
            [0, 1, 1, 1, 0, 1],
        ),
    ],
)
def test_layers_are_those_of_ggufs_readers(values: dict[str, Any], local: list[int], rotated: list[int]) -> None:
    found = read({"block_count": 6, **values}, {})
    assert found["sliding_window_layout"] == local
    assert found["rope_layout"] == rotated
    assert found["sliding_window_size"] == 4096 and found["moe_primary_router_apply_softmax"]


def test_all_of_four_layers_are_rotated() -> None:
    """llama.cpp takes the step between layers that are not for the number of layers, of which it rotates all."""
    found = read({"block_count": 4, "attention.sliding_window": 4096}, {})
    assert found["sliding_window_layout"] == [0, 1, 1, 1] and found["rope_layout"] == [1] * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"expert_gating_func": 3}, "expert_gating_func 3 is not supported"),
        ({"rope.freq_base": 1e4, "rope.freq_base_swa": 1e6}, "rope.freq_base_swa is not supported"),
    ],
)
def test_what_cannot_be_read(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read({"block_count": 6, **values}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_layout": [1] * 5}, "other layers rotated than GGUF's readers take cannot be exported"),
        ({"sliding_window_layout": [0] * 5}, "other layers rotated than GGUF's readers take cannot be exported"),
        ({"sliding_window_size": 24}, "whose window is not 4096 cannot be exported"),
    ],
)
def test_what_cannot_be_written(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "smallthinker", CASES["smallthinker"] | change)
    convert(
        random_checkpoints.write("smallthinker", tmp_path / "c"), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True
    )
    with pytest.raises(UnsupportedError, match=message):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
