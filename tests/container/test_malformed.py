"""Every file of formats/malformed raises the error that the manifest says, in one clear line."""

import importlib.util
import json
from pathlib import Path

import pytest

from edgeq import errors
from edgeq.container.reader import open_file

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "formats" / "malformed"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


def test_sound_file_opens() -> None:
    with open_file(FOLDER / "sound.eqf") as f:
        f.verify()
        assert list(f.tensors) == ["token_embd.weight", "output_norm.weight"]
        assert json.loads(f.asset("tokenizer.json")) == {"model": {}}


@pytest.mark.parametrize("name", MANIFEST)
def test_malformed(name: str) -> None:
    expected = MANIFEST[name]
    path = FOLDER / name
    if expected["when"] == "verify":
        with open_file(path) as f, pytest.raises(errors.EdgeqError) as caught:
            f.verify()
    else:
        with pytest.raises(errors.EdgeqError) as caught:
            open_file(path)
    message = str(caught.value)
    assert type(caught.value).__name__ == expected["error"], message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert all(word in message for word in expected["words"]), message


def test_files_are_what_the_tool_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_malformed", REPOSITORY / "tools" / "make_malformed.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.write(tmp_path)
    made = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert made == {p.name: p.read_bytes() for p in FOLDER.iterdir() if p.name != ".gitignore"}
