"""What GGUF cannot say of RWKV-7, and what its readers ask for beside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoints
from architecture_cases import CASES

from edgeq.container.gguf_reader import open_gguf
from edgeq.conversion.conversion import convert
from edgeq.errors import UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.models.gguf_rwkv7 import read


def converted(folder: Path, kind: str = "F32") -> Path:
    convert(random_checkpoints.write("rwkv7", folder / "c"), folder / "m.eqf", kind, allow_no_tokenizer=True)
    return folder / "m.eqf"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_eps": 1e-6}, r"GGUF's readers add 0.00064 to the variance of a head, this model 6.4e-05"),
        ({"norm_bias": False}, "norm_bias is False, GGUF's rwkv7 has True"),
        ({"tie_word_embeddings": True}, "its head is the embedding, and readers of GGUF's rwkv7 ask for one apart"),
    ],
)
def test_what_cannot_be_written(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "rwkv7", CASES["rwkv7"] | change)
    with pytest.raises(UnsupportedError, match=message):
        export_gguf(converted(tmp_path), tmp_path / "m.gguf")


def test_other_shifts_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="token_shift_count is 1, supported is 2"):
        read({"token_shift_count": 1}, {})


def test_tensors_are_as_readers_ask_for_them(tmp_path: Path) -> None:
    """Weights of the mixtures in four dimensions; the first layer has what only others need, of zeros."""
    export_gguf(converted(tmp_path), tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        unread = [np.array(file.data(f"blk.0.time_mix_v{part}.weight")) for part in "012"]
    assert shapes["blk.1.time_mix_lerp_fused.weight"] == (6, 1, 1, 192)
    assert shapes["blk.1.channel_mix_lerp_k.weight"] == (192,)
    assert [shapes[f"blk.0.time_mix_v{part}.weight"] for part in "012"] == [(192,), (12, 192), (192, 12)]
    assert not any(one.any() for one in unread)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"num_hidden_layers": 1}, ["F32", "F32", "F32"]),
        ({"a_low_rank_dim": 20, "v_low_rank_dim": 32}, ["F32", "Q8_0", "F32"]),
        ({"a_low_rank_dim": 32, "v_low_rank_dim": 32}, ["F32", "Q8_0", "Q8_0"]),
    ],
)
def test_types_of_what_is_never_read(
    change: dict[str, Any], kinds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the next layer, if there is one, and rows of that length can have them."""
    monkeypatch.setitem(CASES, "rwkv7", CASES["rwkv7"] | change)
    export_gguf(converted(tmp_path, "Q8_0"), tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        assert [file.tensors[f"blk.0.time_mix_v{part}.weight"].type.name for part in "012"] == kinds
