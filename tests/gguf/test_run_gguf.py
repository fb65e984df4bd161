"""`edgeq run model.gguf`: imported once, and again when the file has changed."""

import os
from pathlib import Path

import pytest

import edgeq

pytest.importorskip("gguf")

from gguf_models import write

from edgeq.container.reader import open_file
from edgeq.errors import EdgeqError, OutputError
from edgeq.store.model_cache import cached, runnable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_imported_once_and_again_when_the_file_changes(tmp_path: Path, cache: Path):
    model = tmp_path / "m.gguf"
    write(model, "Q8_0")
    heard: list[str] = []
    first = Path(runnable(model, heard.append))
    assert first.parent == cache and str(first) in heard[0] and "importing" in heard[0] and "once" in heard[0]
    told = len(heard)  # a kernel may have been compiled too: the cache is a new one
    assert Path(runnable(model, heard.append)) == first and len(heard) == told
    os.utime(model, (1, 1))
    second = Path(runnable(model, heard.append))
    assert second != first and list(cache.glob("*.eqf")) == [second]
    with open_file(second) as file:
        file.verify()


def test_one_file_however_it_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """From its own folder, from elsewhere and by its whole path."""
    (tmp_path / "models").mkdir()
    write(tmp_path / "models" / "m.gguf", "Q8_0")
    found = []
    for folder, name in ((tmp_path, "models/m.gguf"), (tmp_path / "models", "m.gguf"), (tmp_path / "cache", "")):
        monkeypatch.chdir(folder)
        found.append(runnable(name or tmp_path / "models" / "m.gguf"))
        assert [one.stale for one in cached()] == [False], name
    assert len(set(found)) == 1
    with open_file(found[0]) as file:
        assert file.metadata["provenance"]["recipe"] == "imported from GGUF"
        assert file.recipe == cached()[0].recipe == "Q8_0", "the type of most bytes"


def test_messages_name_what_was_given(tmp_path: Path, cache: Path):
    """And not the file in the cache, of which who reads them may never have heard."""
    write(tmp_path / "m.gguf", "Q8_0")
    with edgeq.load(tmp_path / "m.gguf", context=64) as model:
        assert repr(model).startswith("<edgeq.Model m.gguf: ")
    with pytest.raises(EdgeqError, match=f"^{tmp_path}/m.gguf: the model is closed"):
        model.generate("a")


def test_other_files_are_left_as_they_are(tmp_path: Path, cache: Path):
    for name in ("m.eqf", "missing.gguf"):
        assert runnable(tmp_path / name) == str(tmp_path / name)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EdgeqError, match="GGUF version 0"):
        runnable(tmp_path / "bad.gguf")
    assert not cache.exists()


def test_a_full_disk_says_what_to_do(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "m.gguf", "Q8_0")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match=r"make room; or set EDGEQ_CACHE, or `edgeq import"):
        runnable(tmp_path / "m.gguf")
    assert list(cache.iterdir()) == []
