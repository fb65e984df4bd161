"""Opening checkpoints: every layout of files, and what is missing named in one line."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch_files
from safetensors.numpy import save_file

from edgeq.checkpoints import open_checkpoint
from edgeq.errors import CheckpointError

WEIGHTS = {f"w{i}": np.arange(12, dtype=np.float32).reshape(4, 3) + i for i in range(4)}
CONFIG = {"model_type": "llama"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_bytes(b'{"x": 1}\n')
    (tmp_path / "README.md").write_text("no asset")
    return tmp_path


def shard(folder: Path, stem: str, end: str, write: Any, index: bool = True) -> list[str]:
    """Two shards and their index; returns the shards' names."""
    names = [f"{stem}-{i:05}-of-00002{end}" for i in (1, 2)]
    items = list(WEIGHTS.items())
    for name, part in zip(names, (items[:2], items[2:]), strict=True):
        write(folder / name, dict(part))
    if index:
        places = {weight: names[i // 2] for i, weight in enumerate(WEIGHTS)}
        (folder / f"{stem}{end}.index.json").write_text(json.dumps({"weight_map": places}))
    return names


def save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path)


def holds_all(source: Path) -> None:
    with open_checkpoint(source) as c:
        assert sorted(c.tensors) == sorted(WEIGHTS)
        assert c.config == CONFIG and c.source == str(source)
        assert c.assets["tokenizer.json"] == b'{"x": 1}\n'
        assert "README.md" not in c.assets
        for name, weights in WEIGHTS.items():
            assert c.tensors[name].shape == (4, 3) and c.tensors[name].dtype == "F32"
            assert np.array_equal(c.read(name), weights)
            assert np.array_equal(c.read_rows(name, 1, 3), weights[1:3])


def refused(source: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_single_files(folder: Path) -> None:
    torch_files.write(folder / "pytorch_model.bin", WEIGHTS)
    holds_all(folder)
    holds_all(folder / "pytorch_model.bin")
    save_file(WEIGHTS, folder / "model.safetensors")
    holds_all(folder)
    holds_all(folder / "model.safetensors")


def test_safetensors_are_preferred(folder: Path) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"broken")
    holds_all(folder)


@pytest.mark.parametrize("index", [True, False])
def test_shards(folder: Path, index: bool) -> None:
    shard(folder, "model", ".safetensors", save, index)
    holds_all(folder)


@pytest.mark.parametrize("index", [True, False])
def test_torch_shards(folder: Path, index: bool) -> None:
    shard(folder, "pytorch_model", ".bin", torch_files.write, index)
    holds_all(folder)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("lost", [0, 1])
def test_missing_shard_is_named(folder: Path, index: bool, lost: int) -> None:
    names = shard(folder, "model", ".safetensors", save, index)
    (folder / names[lost]).unlink()
    message = refused(folder)
    assert message.startswith(f"{folder}: ") and names[lost] in message and "missing" in message


def test_truncated_shard_is_named(folder: Path) -> None:
    names = shard(folder, "model", ".safetensors", save)
    os.truncate(folder / names[1], (folder / names[1]).stat().st_size - 1)
    assert refused(folder).startswith(f"{folder / names[1]}: ")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"w0": 3}}, "no weight_map"),
        ({"weight_map": {"w0": "../model.safetensors"}}, "outside the checkpoint"),
        ({"weight_map": {"other": "a.safetensors"}}, "a.safetensors: has no tensor 'other'"),
        ([], "not a JSON object"),
    ],
)
def test_bad_index(folder: Path, index: Any, words: str) -> None:
    save_file(WEIGHTS, folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert words in refused(folder)


def notes(folder: Path) -> list[str]:
    with open_checkpoint(folder) as checkpoint:
        return checkpoint.notes


def test_a_whole_file_is_preferred_to_an_index(folder: Path) -> None:
    """As transformers prefers it; whether the shards are there, and whether the index can be read, does not matter."""
    names = shard(folder, "model", ".safetensors", lambda path, part: save(path, {k: -v for k, v in part.items()}))
    save(folder / "model.safetensors", WEIGHTS)
    expected = ["model.safetensors is taken, the shards of model.safetensors.index.json are not"]
    holds_all(folder)
    assert notes(folder) == expected
    for name in names:
        (folder / name).unlink()
    holds_all(folder)
    assert notes(folder) == expected
    (folder / "model.safetensors.index.json").write_text("{")
    holds_all(folder)
    assert notes(folder) == expected


def test_an_index_of_one_file(folder: Path) -> None:
    save(folder / "model.safetensors", WEIGHTS)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, "model.safetensors")}))
    holds_all(folder)
    assert notes(folder) == []


def test_a_whole_files_name_for_a_shard(folder: Path) -> None:
    items = list(WEIGHTS.items())
    save(folder / "model.safetensors", dict(items[:2]))
    save(folder / "more.safetensors", dict(items[2:]))
    places = {name: "model.safetensors" if i < 2 else "more.safetensors" for i, name in enumerate(WEIGHTS)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    holds_all(folder)
    assert notes(folder) == []


@pytest.mark.parametrize("index", [True, False])
def test_odd_names_of_shards(folder: Path, index: bool) -> None:
    """Whatever an index names; without one, what begins with the whole file's name and is numbered."""
    names = shard(folder, "model.safetensors", ".safetensors", save, index=False)
    if index:
        places = {weight: names[i // 2] for i, weight in enumerate(WEIGHTS)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    holds_all(folder)
    (folder / names[1]).unlink()
    assert f"the shard {names[1]} is missing" in refused(folder)


def test_tensors_in_another_shard_than_the_index_says(folder: Path) -> None:
    names = shard(folder, "model", ".safetensors", save)
    places = dict.fromkeys(WEIGHTS, names[0]) | {"w3": names[1]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    holds_all(folder)
    not_there = "which has it, not from where model.safetensors.index.json says"
    assert notes(folder) == [f"w2 is taken from {names[1]}, {not_there}"]
    places = {"w0": names[1], "w3": names[0]}  # the others are not named at all
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    holds_all(folder)
    assert notes(folder) == [f"w0 (and 1 more) is taken from {names[0]}, {not_there}"]


def test_the_index_tells_two_tensors_of_a_name_apart(folder: Path) -> None:
    names = shard(folder, "model", ".safetensors", save)
    save(folder / names[1], {"w0": -WEIGHTS["w0"], "w2": WEIGHTS["w2"], "w3": WEIGHTS["w3"]})
    holds_all(folder)


def test_two_sets_of_shards(folder: Path) -> None:
    names = shard(folder, "model", ".safetensors", save, index=False)
    save(folder / "model-00002-of-00003.safetensors", {"w0": -WEIGHTS["w0"]})
    save(folder / "model.fp16-00001-of-00001.safetensors", {"w0": -WEIGHTS["w0"]})
    holds_all(folder)
    assert notes(folder) == [f"{names[0]} and its like are taken, other shards are not"]
    save(folder / "model-00001-of-00001.safetensors", WEIGHTS)
    message = refused(folder)
    assert "has shards of 2 checkpoints" in message and names[0] in message and "keep those of one" in message


def test_other_names_of_a_tensor(folder: Path) -> None:
    """safetensors' save_model keeps one of the tensors that share their memory, and notes the names of the others."""
    kept = {name: weights for name, weights in WEIGHTS.items() if name != "w1"}
    save_file(kept, folder / "model.safetensors", {"format": "pt", "w1": "w2", "w3": "w0", "other": "none"})
    with open_checkpoint(folder) as checkpoint:
        assert sorted(checkpoint.tensors) == sorted(WEIGHTS)
        assert np.array_equal(checkpoint.read("w1"), WEIGHTS["w2"]) and checkpoint.same("w1", "w2")
        assert np.array_equal(checkpoint.read("w3"), WEIGHTS["w3"]), "it is stored, whatever the note says"


def test_tensors_with_the_same_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = WEIGHTS["w0"].copy()
    far[3, 2] += 1
    tensors = {"a": WEIGHTS["w0"], "b": WEIGHTS["w0"].copy(), "far": far, "short": far[:3].copy()}
    save(folder / "model.safetensors", tensors)
    monkeypatch.setattr("edgeq.checkpoints.checkpoint.COMPARED", 3)  # a row at a time
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.same("a", "a") and checkpoint.same("a", "b")
        assert not checkpoint.same("a", "far") and not checkpoint.same("far", "short")


def test_no_weights(folder: Path) -> None:
    assert "no weights found" in refused(folder)


def test_no_config(folder: Path) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_damaged_config(folder: Path, content: bytes) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")
    (folder / "config.json").write_bytes(content)
    assert refused(folder).startswith(f"{folder / 'config.json'}: ")


def test_what_is_no_checkpoint(folder: Path) -> None:
    assert "no checkpoint" in refused(folder / "README.md")
    for none in ("/no/such/folder", "./none", "none.safetensors", "a/b/c", "", "~nobody-of-this-name/x"):
        assert refused(none) == f"{none}: no such file or folder"
    url = "https://huggingface.co/someone/model"
    assert refused(url) == f"{url}: no such file or folder: give a Hub repository as owner/name, not as a URL"


@pytest.fixture
def locked(folder: Path) -> Iterator[Path]:
    """A checkpoint that this process may neither list nor enter. Root may everything, so it becomes nobody."""
    save_file(WEIGHTS, folder / "model.safetensors")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)


def test_a_folder_that_may_not_be_read(locked: Path) -> None:
    for source in (locked, locked / "model.safetensors"):
        assert refused(source).endswith(": cannot be read: Permission denied")


HUB = """
import sys
from edgeq.checkpoints import open_checkpoint
from edgeq.errors import CheckpointError
try:
    print(sorted(open_checkpoint(sys.argv[1]).tensors))
except CheckpointError as e:
    print(e)
"""


def from_hub(home: Path, repository: str, **environment: str) -> str:
    """What opening a Hub repository prints, in a process whose Hugging Face settings are its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", HUB, repository],
        env={**kept, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_hub_offline_uses_the_cache(tmp_path: Path) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--someone--small"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    names = shard(snapshot, "pytorch_model", ".bin", torch_files.write)
    assert from_hub(tmp_path, "someone/small", HF_HUB_OFFLINE="1") == "['w0', 'w1', 'w2', 'w3']"
    (snapshot / names[1]).unlink()
    assert names[1] in from_hub(tmp_path, "someone/small", HF_HUB_OFFLINE="1")


def test_hub_content_under_a_right_name(tmp_path: Path) -> None:
    """The library names files by what the Hub says of them: SHA-256 of large ones, Git's SHA-1 of small ones."""
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--someone--small"
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    save(tmp_path / "model.safetensors", WEIGHTS)
    weights, config = (tmp_path / "model.safetensors").read_bytes(), json.dumps(CONFIG).encode()
    large = blobs / hashlib.sha256(weights).hexdigest()
    small = blobs / hashlib.sha1(b"blob %d\0" % len(config) + config).hexdigest()
    for name, blob, content in (("model.safetensors", large, weights), ("config.json", small, config)):
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    assert from_hub(tmp_path, "someone/small", HF_HUB_OFFLINE="1").startswith("['w0'")
    for blob, content in ((large, weights), (small, config)):
        flipped = bytearray(content)
        flipped[-1] ^= 1
        blob.write_bytes(flipped)
        message = from_hub(tmp_path, "someone/small", HF_HUB_OFFLINE="1")
        assert message.startswith(f"{blob}: is not what the Hub has as") and "remove that file" in message
        blob.write_bytes(content)


def test_hub_out_of_reach(tmp_path: Path) -> None:
    message = from_hub(tmp_path, "someone/none", HF_ENDPOINT="http://127.0.0.1:9")
    assert message.startswith("someone/none: ") and "cannot be reached" in message and "\n" not in message


class FakeHub:
    """Stands for `snapshot_download`: copies the files that match the patterns, and remembers them."""

    def __init__(self, files: dict[str, bytes], cache: Path) -> None:
        self.files, self.cache, self.fetched, self.revisions = files, cache, set[str](), set[str | None]()

    def __call__(self, repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.revisions.add(revision)
        self.cache.mkdir(exist_ok=True)
        for name, content in self.files.items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                (self.cache / name).write_bytes(content)
                self.fetched.add(name)
        return str(self.cache)


@pytest.mark.parametrize("safetensors", [True, False])
def test_hub_fetches_only_what_is_needed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, safetensors: bool
) -> None:
    template = "additional_chat_templates/tool_use.jinja"
    needed = {"config.json", "tokenizer.json", template}
    torch_shards = set(shard(folder, "pytorch_model", ".bin", torch_files.write))
    torch_shards.add("pytorch_model.bin.index.json")
    if safetensors:
        needed |= {*shard(folder, "model", ".safetensors", save), "model.safetensors.index.json"}
    else:
        needed |= torch_shards
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    files |= {"original/consolidated.00.pth": b"", "flax_model.msgpack": b"", "onnx/model.onnx": b"", "vocab.json": b""}
    files |= {template: b"tools"}
    fake = FakeHub(files, tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with open_checkpoint("someone/model", "v2") as c:
        assert sorted(c.tensors) == sorted(WEIGHTS)
        assert c.assets["chat_template.tool_use.jinja"] == b"tools" and any(template in name for name in c.files)
    assert fake.fetched == needed and fake.revisions == {"v2"}


def test_hub_fetches_what_the_index_names(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever these files are called."""
    save(folder / "model.safetensors-1-of-2.safetensors", {"a": WEIGHTS["w0"]})
    save(folder / "second [2].safetensors", {"b": WEIGHTS["w1"]})
    places = {"a": "model.safetensors-1-of-2.safetensors", "b": "second [2].safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} | {"second 2.safetensors": b""}
    fake = FakeHub(files, tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with open_checkpoint("someone/model") as c:
        assert sorted(c.tensors) == ["a", "b"]
    assert fake.fetched == {*places.values(), "model.safetensors.index.json", "config.json", "tokenizer.json"}


def test_a_branch_that_moves_while_it_is_fetched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are of one commit."""
    shard(folder, "model", ".safetensors", save)
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    commits = ["0" * 40, "1" * 40]
    hub = {commit: FakeHub(files, tmp_path / commit) for commit in commits}

    def moving(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        return hub[revision if revision in hub else commits.pop(0)](repository, revision, allow_patterns)

    monkeypatch.setattr("huggingface_hub.snapshot_download", moving)
    with open_checkpoint("someone/model") as c:
        assert sorted(c.tensors) == sorted(WEIGHTS)
    assert hub["0" * 40].revisions == {None, "0" * 40} and not hub["1" * 40].revisions


def test_a_whole_file_beside_an_index(folder: Path) -> None:
    """Transformers takes it, whether the shards that the index names are there or not."""
    shards = shard(folder, "model", ".safetensors", save)
    save(folder / "model.safetensors", {"whole": WEIGHTS["w0"]})
    with open_checkpoint(folder) as c:
        assert sorted(c.tensors) == ["whole"]
    for name in shards:
        (folder / name).unlink()
    with open_checkpoint(folder) as c:
        assert sorted(c.tensors) == ["whole"]


def answering(status: int, error: str = "HfHubHTTPError", **headers: str) -> Exception:
    """What the Hub's library raises where the Hub answers so."""
    from huggingface_hub import errors

    raised = getattr(errors, error).__new__(getattr(errors, error))
    raised.args = (f"{status} of a test\nmore",)
    raised.response = SimpleNamespace(status_code=status, headers=headers)
    return raised


@pytest.mark.parametrize(
    ("error", "revision", "message"),
    [
        (answering(401, "GatedRepoError"), None, "the repository is gated: accept its licence"),
        (answering(404, "RepositoryNotFoundError"), None, "no such repository on the Hub"),
        (answering(404, "RevisionNotFoundError"), "v2", "the repository has no revision 'v2'"),
        (answering(404, "RevisionNotFoundError"), None, "the repository is empty"),
        (answering(403), None, r"the Hub refuses access \(403\): log in with `hf auth login`"),
        (answering(429), None, r"the Hub asks to wait \(429, too many requests\)"),
        (answering(429, **{"Retry-After": "30"}), None, r"asks to wait 30 seconds \(429"),
        (answering(500), None, r"has a fault at the moment \(500\): try again later"),
        (answering(503), None, r"has a fault at the moment \(503\)"),
        (answering(418), None, "answered with an error: 418 of a test$"),
        (TimeoutError("timed out"), None, "the Hub does not answer in time"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_what_the_hub_answers(
    monkeypatch: pytest.MonkeyPatch, error: Exception, revision: str | None, message: str, hidden: bool
) -> None:
    """Also where the library says only that its cache has no such files."""

    def fail(*arguments: Any, **options: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if hidden:
            raise LocalEntryNotFoundError("not in the cache") from error
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match=f"^someone/model: .*{message}") as raised:
        open_checkpoint("someone/model", revision)
    assert "\n" not in str(raised.value) and "None" not in str(raised.value)


def test_offline_mode_is_named(tmp_path: Path) -> None:
    message = from_hub(tmp_path, "someone/none", HF_HUB_OFFLINE="1")
    assert message.startswith("someone/none: ") and "HF_HUB_OFFLINE forbids to fetch it: unset it" in message


def test_download_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    for error in (ConnectionResetError("reset by peer\nmore"), HfHubHTTPError.__bases__[0]("peer closed")):

        def fail(*arguments: Any, error: Exception = error, **options: Any) -> str:
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        message = refused("someone/model")
        assert message.startswith("someone/model: the download broke off") and "resumes" in message
