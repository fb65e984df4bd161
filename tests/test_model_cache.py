"""What is run without having been converted first: a checkpoint's folder, a repository of the Hub."""

import os
import shutil
from pathlib import Path

import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, UsageError
from edgeq.model_cache import runnable


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are kept; kernels that are compiled already are not compiled again."""
    from edgeq.environment import cache_folder

    (tmp_path / "cache").mkdir()
    if (cache_folder() / "kernels").is_dir():
        (tmp_path / "cache" / "kernels").symlink_to(cache_folder() / "kernels")
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "stories")
    return tmp_path / "stories"


def kind(path: str) -> str:
    with open_file(path) as file:
        return file.tensors["blk.0.attn_q.weight"].type


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(checkpoint: Path, cache: Path):
    heard: list[str] = []
    first = runnable(checkpoint, heard.append)
    assert heard[0] == f"converting {checkpoint} once, as {first}" and Path(first).parent == cache
    assert Path(first).name.startswith("stories-") and kind(first) == "Q4_K"
    told = len(heard)
    assert runnable(checkpoint, heard.append) == first == runnable(f"{checkpoint}/", heard.append)
    assert len(heard) == told
    os.utime(checkpoint / "config.json", (1, 1))
    second = runnable(checkpoint)
    assert second != first and os.listdir(cache) == [Path(second).name]


def test_recipes_stand_side_by_side(checkpoint: Path, cache: Path):
    default, small = runnable(checkpoint), runnable(f"{checkpoint}:q8_0")
    assert kind(default) == "Q4_K" and kind(small) == "Q8_0" and Path(small).name.startswith("stories-Q8_0-")
    assert {Path(default).name, Path(small).name} == set(os.listdir(cache))
    with pytest.raises(UsageError, match="unknown type 'Q9_K_M': did you mean"):
        runnable(f"{checkpoint}:Q9_K_M")


def test_a_repository_is_fetched_once(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    fetched: list[str] = []

    def fetch(source: str, revision: str | None, assets: list[str]) -> Path:
        fetched.append(source)
        return checkpoint

    monkeypatch.setattr("edgeq.checkpoints.hub.fetch", fetch)
    first = runnable("people/stories:Q8_0")
    assert runnable("people/stories:Q8_0") == first and fetched == ["people/stories"]
    assert Path(first).name.startswith("people-stories-Q8_0-")
    with edgeq.load("people/stories:Q8_0") as model:
        assert "".join(model.generate("Once upon a", max_tokens=2, temperature=0)).startswith(" time")
    assert fetched == ["people/stories"]


def test_what_is_none_is_left_as_it_is(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes:Q8_0").write_text("text")
    for name in ("m.eqf", "folder/m.eqf", "folder/m.gguf", "./folder/model", "name", "notes:Q8_0", "a/b/c", "c:d:e"):
        assert runnable(name) == name
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: no weights found|empty: .*config\.json"):
        runnable("empty")
    assert not cache.exists() or os.listdir(cache) == []
