"""The tokens around a middle that is to be filled in, as GGUF's keys name them."""

from pathlib import Path

import pytest

pytest.importorskip("gguf")

from gguf import GGUFValueType
from gguf_models import write

import edgeq
from edgeq.gguf.importer import import_gguf
from edgeq.serve.engine import Engine
from edgeq.serve.failures import Failure
from edgeq.serve.infill import infill

UINT32 = GGUFValueType.UINT32


def prompt_of(path: Path, **ids: int) -> list[int]:
    """The prompt of a middle between "a" and "b", of a model whose file has these keys."""
    keys = {f"tokenizer.ggml.{key}_token_id": (value, UINT32) for key, value in ids.items()}
    write(path / "m.gguf", "Q8_0", **keys)
    import_gguf(path / "m.gguf", path / "m.eqf")
    with edgeq.load(path / "m.eqf") as model:
        return infill(Engine(model, None, 8), "a", "b")


def test_the_keys_name_the_tokens(tmp_path):
    """Also where their names say nothing."""
    before, after = 6, [3, 5]  # "▁a", "▁" and "b"
    assert prompt_of(tmp_path, fim_pre=10, fim_suf=11, fim_mid=12) == [1, 10, before, 11, *after, 12]


def test_older_keys(tmp_path):
    assert prompt_of(tmp_path, prefix=12, suffix=11, middle=10)[::2] == [1, 6, 3, 10]


@pytest.mark.parametrize("ids", [{}, {"fim_pre": 10, "fim_suf": 11}, {"fim_pre": 10, "fim_suf": 10, "fim_mid": 10}])
def test_two_are_none(tmp_path, ids):
    with pytest.raises(Failure, match="no tokens to fill in"):
        prompt_of(tmp_path, **ids)
