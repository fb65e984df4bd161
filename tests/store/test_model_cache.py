"""What is run without having been converted first: a checkpoint's folder, a repository of the Hub."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, NotFoundError, UsageError
from edgeq.store.model_cache import cached, named, remove, runnable


@pytest.fixture(autouse=True)
def cache(empty_cache: Path) -> Path:
    """Where models are kept."""
    return empty_cache / "models"


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "stories")
    return tmp_path / "stories"


def kind(path: str) -> str:
    with open_file(path) as file:
        return file.tensors["blk.0.attn_q.weight"].type


def models(cache: Path) -> set[str]:
    return {one.name for one in cache.glob("*.eqf")}


def lists_files(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """What the Hub says that a repository has."""
    siblings = [SimpleNamespace(rfilename=name) for name in names]
    monkeypatch.setattr("huggingface_hub.model_info", lambda source: SimpleNamespace(siblings=siblings))


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(checkpoint: Path, cache: Path):
    heard: list[str] = []
    first = runnable(checkpoint, heard.append)
    assert heard[0] == f"converting {checkpoint} once, as {first}" and Path(first).parent == cache
    assert Path(first).name.startswith("stories-") and kind(first) == "Q5_K"
    told = len(heard)
    assert runnable(checkpoint, heard.append) == first == runnable(f"{checkpoint}/", heard.append)
    assert len(heard) == told
    os.utime(checkpoint / "config.json", (1, 1))
    (cache / ".older-0.eqf.0123abcd.tmp").touch()  # of a conversion that was killed
    second = runnable(checkpoint)
    assert second != first and models(cache) == {Path(second).name}
    assert {one.suffix for one in cache.iterdir()} == {".eqf", ".json"} and len(os.listdir(cache)) == 2


def test_recipes_stand_side_by_side(checkpoint: Path, cache: Path):
    default, small = runnable(checkpoint), runnable(f"{checkpoint}:q8_0")
    assert kind(default) == "Q5_K" and kind(small) == "Q8_0" and Path(small).name.startswith("stories-Q8_0-")
    assert {Path(default).name, Path(small).name} == models(cache)
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
    calls = len(fetched)
    assert runnable("people/stories:Q8_0") == first and fetched == ["people/stories"] * calls
    assert Path(first).name.startswith("people-stories-Q8_0-")
    with edgeq.load("people/stories:Q8_0") as model:
        assert "".join(model.generate("Once upon a", max_tokens=2, temperature=0)).startswith(" time")
    assert len(fetched) == calls
    heard: list[str] = []
    runnable("people/stories", heard.append)
    assert heard[0] == "fetching people/stories from the Hub" and heard[1].startswith("converting people/stories once")


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
    names = {"stories-q8_0.gguf": model, "stories-q4_0.gguf": b""}
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


def test_gguf_files_that_were_fetched_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a network they are in the Hub's cache."""
    from edgeq.checkpoints.hub import fetch_gguf

    def fail(source: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.model_info", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert fetch_gguf("people/model", None) is None
    commit = "0" * 40
    snapshot = tmp_path / "models--people--model" / "snapshots" / commit
    (snapshot / "deep").mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(commit)
    assert fetch_gguf("people/model", None) is None
    (snapshot / "deep" / "a-Q8_0.gguf").touch()
    for kind in (None, "q8_0"):
        assert fetch_gguf("people/model", kind) == snapshot / "deep" / "a-Q8_0.gguf"
    with pytest.raises(
        CheckpointError, match=r"^people/model: the Hub cannot be reached, and its cache has no Q4_0, but"
    ):
        fetch_gguf("people/model", "Q4_0")
    (snapshot / "model.safetensors").touch()
    assert fetch_gguf("people/model", None) is None


def test_two_gguf_files_of_a_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gguf_repository(dict.fromkeys(["small-Q8_0.gguf", "large-Q8_0.gguf"], b""), tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match="people/model: has several files of Q8_0: fetch one by hand"):
        runnable("people/model")


def test_what_is_none_is_left_as_it_is(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes:Q8_0").write_text("text")
    for name in ("m.eqf", "folder/m.eqf", "folder/m.gguf", "./folder/model", "notes:Q8_0", "a/b/c", "a/b/c:d"):
        assert runnable(name) == name
    for name in ("name", "c:d:e"):
        with pytest.raises(NotFoundError, match=f"{name}: no such file, and no model of that name"):
            runnable(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: no weights found|empty: .*config\.json"):
        runnable("empty")
    assert not cache.exists() or os.listdir(cache) == []


def test_links_to_one_file_have_neighbours_of_their_own(checkpoint: Path, tmp_path: Path):
    """As the snapshots in the Hub's cache: the weights are the same, the configuration is another one."""
    texts = []
    for name, base in (("a", 10000.0), ("b", 100.0)):
        shutil.copytree(checkpoint, tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
        (tmp_path / name / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
        config = json.loads((checkpoint / "config.json").read_text())
        config.pop("rope_parameters", None)
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "rope_theta": base}))
        with edgeq.load(tmp_path / name / "model.safetensors", context=64) as model:
            texts.append(model.file.metadata["config"]["rope_theta"])
    assert texts == [10000.0, 100.0]


def test_files_in_folders_of_the_checkpoint_count(checkpoint: Path):
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text("{}")
    first = runnable(checkpoint)
    (checkpoint / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert runnable(checkpoint) != first


def test_nothing_is_said_of_a_folder_without_weights(tmp_path: Path):
    heard: list[str] = []
    with pytest.raises(CheckpointError):
        runnable(tmp_path, heard.append)
    assert heard == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed(checkpoint: Path):
    checkpoint.chmod(0)
    try:
        with pytest.raises(CheckpointError, match=r"stories: cannot be read: Permission denied"):
            runnable(checkpoint)
    finally:
        checkpoint.chmod(0o755)


def test_names_that_no_file_could_have(checkpoint: Path, tmp_path: Path):
    odd = tmp_path / ("a\nb " + 200 * "c")
    checkpoint.rename(odd)
    assert Path(runnable(odd)).name.startswith("a_b " + 96 * "c" + "-")


def test_what_edgeq_writes_into_a_checkpoint_is_none_of_it(checkpoint: Path):
    first = runnable(checkpoint)
    for name in ("stories.eqf", ".DS_Store", "answer.log", "README.md"):
        (checkpoint / name).write_text("made")
    assert runnable(checkpoint) == first


def test_progress_is_told(checkpoint: Path):
    told: list[tuple[str, int, int]] = []
    runnable(checkpoint, progress=lambda *what: told.append(what))
    assert told and told[-1][1] == told[-1][2] > 0 and told[0][0].startswith("1/")


def test_what_is_in_the_cache(checkpoint: Path, cache: Path, tmp_path: Path):
    assert cached() == []
    small, default = runnable(f"{checkpoint}:Q8_0"), runnable(checkpoint)
    os.utime(default, (1, 1))
    os.utime(small, (2, 2))
    assert [(one.name, one.recipe, one.source, one.used, one.remark, one.stale) for one in cached()] == [
        ("stories-Q8_0", "Q8_0", str(checkpoint), 2.0, "", False),
        ("stories", "Q4_K_M", str(checkpoint), 1.0, "", False),
    ]
    assert cached()[0].nbytes == os.path.getsize(small)
    assert runnable(checkpoint) == default and cached()[0].name == "stories", "used now"
    (cache / "other.eqf").write_bytes(b"no model")
    (cache / "stories-000000000000-000000000000.json").write_text("no JSON")
    assert len(cached()) == 2
    os.utime(checkpoint / "config.json", (1, 1))
    assert {(one.remark, one.stale) for one in cached()} == {("its source has changed, or edgeq has", True)}
    shutil.rmtree(checkpoint)
    assert {(one.remark, one.stale) for one in cached()} == {("its source is gone", False)}
    remove(named("stories-Q8_0"))
    assert models(cache) == {Path(default).name, "other.eqf"} and not Path(small).with_suffix(".json").exists()


def test_names_of_what_is_in_the_cache(checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small, default = runnable(f"{checkpoint}:Q8_0"), runnable(checkpoint)
    assert runnable("stories") == default and runnable("stories-q8") == small and runnable("STORIES-Q8_0") == small
    assert str(named("stories-Q8_0").path) == small == str(named(small).path)
    with pytest.raises(NotFoundError, match=r"stories-Q: no such file, and no model of that name"):
        named("stories-Q")
    shutil.copytree(checkpoint, tmp_path / "stools")
    runnable(tmp_path / "stools")
    with pytest.raises(UsageError, match=r"sto: may be .*stories.* or .*: say more of its name"):
        runnable("sto")
    with pytest.raises(NotFoundError, match="storeis: no such file, and no model of that name: did you mean stories"):
        runnable("storeis")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stools").rename(tmp_path / "stories-Q8_0")
    assert runnable("stories-Q8_0") != small, "a path that exists is that path"


def test_a_short_name_means_what_is_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rather than what would have to be fetched."""
    path = runnable(checkpoint.rename(tmp_path / "SmolLM2-135M"))
    assert runnable("smollm2") == path
    shutil.copytree(tmp_path / "SmolLM2-135M", tmp_path / "SmolLM2-360M")
    runnable(tmp_path / "SmolLM2-360M")
    monkeypatch.setattr("edgeq.checkpoints.hub.fetch_gguf", lambda text, kind: pytest.fail(text))
    with pytest.raises(pytest.fail.Exception, match=r"HuggingFaceTB/SmolLM2-1\.7B-Instruct"):
        runnable("smollm2")


def test_a_folder_named_like_a_repository_changes_nothing_of_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgeq.checkpoints.hub.fetch", lambda source, revision, assets: checkpoint)
    lists_files(monkeypatch, os.listdir(checkpoint))
    runnable("people/stories")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "people" / "stories")
    assert [(one.remark, one.stale) for one in cached()] == [("", False)]


def test_a_cache_that_cannot_be_written_is_read(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    path = runnable(checkpoint)

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.utime", refuse)
    assert runnable(checkpoint) == path == runnable("stories")
