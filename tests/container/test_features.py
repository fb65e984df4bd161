"""What a file requires of its reader: known features are told, unknown ones refused, and most files require none."""

import hashlib
import json
import struct
from pathlib import Path

import pytest

from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import UnsupportedError

METADATA = {"architecture": "llama", "config": {"model_type": "llama"}}
SPECS = [TensorSpec("output_norm.weight", (8,), "F32")]
KNOWN = frozenset({"rotated-weights", "channel-scales"})


@pytest.fixture
def known(monkeypatch):
    """A version that knows two features."""
    monkeypatch.setattr("edgeq.container.header.FEATURES", KNOWN)
    monkeypatch.setattr("edgeq.container.writer.FEATURES", KNOWN)


def write(path: Path, *requires: str) -> Path:
    with Writer(path, SPECS, METADATA, {"tokenizer.json": b"{}"}, requires) as writer:
        writer.write("output_norm.weight", bytes(range(32)))
    return path


def test_a_file_that_requires_nothing_is_what_it_always_was(tmp_path: Path):
    content = write(tmp_path / "m.eqf").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "b424eedfdb1d2443f54f59ac57a487ac8852543415148f3fcc09c11714760abf"
    with open_file(tmp_path / "m.eqf") as file:
        assert file.requires == ()


def test_what_a_file_requires_is_told(known, tmp_path: Path):
    path = write(tmp_path / "m.eqf", "rotated-weights", "channel-scales", "rotated-weights")
    with open_file(path) as file:
        assert file.requires == ("channel-scales", "rotated-weights")
        file.verify()
        assert file.data("output_norm.weight").tobytes() == bytes(range(32))
    _, version, length, _ = struct.unpack_from("<8sIQI", path.read_bytes())
    header = json.loads(path.read_bytes()[24 : 24 + length])
    assert header["requires"] == ["channel-scales", "rotated-weights"]
    assert version == 3, "readers that know no such list read 2, and ignore what they do not know"


def test_what_is_not_known_is_refused(known, tmp_path: Path, monkeypatch):
    path = write(tmp_path / "m.eqf", "rotated-weights", "channel-scales")
    monkeypatch.setattr("edgeq.container.header.FEATURES", frozenset({"channel-scales"}))
    with pytest.raises(UnsupportedError) as caught:
        open_file(path)
    what = "requires the feature 'rotated-weights', which this edgeq does not know: update edgeq"
    assert str(caught.value) == f"{path}: {what}"


def test_what_is_not_known_is_not_written(known, tmp_path: Path):
    with pytest.raises(ValueError, match=r"features that are not known: other, some$"):
        write(tmp_path / "m.eqf", "some", "rotated-weights", "other")
    assert not list(tmp_path.iterdir())
