"""What is run without having been converted first: a checkpoint's folder, a repository of the Hub."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

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


def lists_files(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """What the Hub says that a repository has."""
    siblings = [SimpleNamespace(rfilename=name) for name in names]
    monkeypatch.setattr("huggingface_hub.model_info", lambda source: SimpleNamespace(siblings=siblings))


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(checkpoint: Path, cache: Path):
    heard: list[str] = []
    first = runnable(checkpoint, heard.append)
    assert heard[0] == f"converting {checkpoint} once, as {first}" and Path(first).parent == cache
    assert Path(first).name.startswith("stories-") and kind(first) == "Q4_K"
    told = len(heard)
    assert runnable(checkpoint, heard.append) == first == runnable(f"{checkpoint}/", heard.append)
    assert len(heard) == told
    os.utime(checkpoint / "config.json", (1, 1))
    (cache / ".older-0.eqf.0123abcd.tmp").touch()  # of a conversion that was killed
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
    lists_files(monkeypatch, os.listdir(checkpoint))
    first = runnable("people/stories:Q8_0")
    assert runnable("people/stories:Q8_0") == first and fetched == ["people/stories"]
    assert Path(first).name.startswith("people-stories-Q8_0-")
    with edgeq.load("people/stories:Q8_0") as model:
        assert "".join(model.generate("Once upon a", max_tokens=2, temperature=0)).startswith(" time")
    assert fetched == ["people/stories"]


def gguf_repository(names: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A repository with these files; the result tells what is fetched of it."""
    fetched: list[list[str]] = []

    def snapshot_download(source: str, allow_patterns: list[str]) -> str:
        fetched.append(allow_patterns)
        for name in allow_patterns:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(names[name])
        return str(folder)

    lists_files(monkeypatch, [*names, "README.md"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return fetched


def test_a_repository_of_gguf_files(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    from edgeq.gguf.exporter import export_gguf

    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    model = (tmp_path / "m.gguf").read_bytes()
    names = {"stories-q8_0.gguf": model, "stories-q4_0.gguf": b"", "mmproj-f16.gguf": b""}
    fetched = gguf_repository(names, tmp_path / "hub", monkeypatch)
    with edgeq.load("people/stories-GGUF:Q8_0") as loaded:
        assert "".join(loaded.generate("Once upon a", max_tokens=2, temperature=0)).startswith(" time")
    assert fetched == [["stories-q8_0.gguf"]]
    with pytest.raises(
        CheckpointError, match=r"has no Q5_K, but Q4_0, Q8_0: name one of them, e\.g\. people/st.*:Q4_0"
    ):
        runnable("people/stories-GGUF:Q5_K")
    with pytest.raises(CheckpointError, match="has GGUF files of Q4_0, Q8_0: name one of them"):
        runnable("people/stories-GGUF")


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], None, ["a-Q4_K_M.gguf"]),
        (["model.gguf"], None, ["model.gguf"]),
        (["a.IQ2_XXS.gguf", "a.f16.gguf"], "iq2_xxs", ["a.IQ2_XXS.gguf"]),
        (
            ["Q8_0/a-Q8_0-00002-of-00002.gguf", "Q8_0/a-Q8_0-00001-of-00002.gguf", "a-UD-Q4_K_XL.gguf"],
            "Q8_0",
            ["Q8_0/a-Q8_0-00001-of-00002.gguf", "Q8_0/a-Q8_0-00002-of-00002.gguf"],
        ),
    ],
)
def test_which_gguf_file(names, kind, expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from edgeq.checkpoints.hub import fetch_gguf

    fetched = gguf_repository(dict.fromkeys(names, b""), tmp_path, monkeypatch)
    assert fetch_gguf("people/model", kind) == tmp_path / expected[0] and fetched == [expected]


def test_two_gguf_files_of_a_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gguf_repository(dict.fromkeys(["small-Q8_0.gguf", "large-Q8_0.gguf"], b""), tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match="people/model: has several files of Q8_0: fetch one by hand"):
        runnable("people/model")


def test_what_is_none_is_left_as_it_is(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes:Q8_0").write_text("text")
    for name in ("m.eqf", "folder/m.eqf", "folder/m.gguf", "./folder/model", "name", "notes:Q8_0", "a/b/c", "c:d:e"):
        assert runnable(name) == name
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: no weights found|empty: .*config\.json"):
        runnable("empty")
    assert not cache.exists() or os.listdir(cache) == []
