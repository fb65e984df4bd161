"""What people call a model."""

from pathlib import Path

import pytest

from edgeq.errors import NotFoundError, UsageError
from edgeq.store import model_names, recommended


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("owner/name", "owner/name"),
        ("owner/name:Q8_0", "owner/name:Q8_0"),
        ("hf.co/owner/name", "owner/name"),
        ("hf.co/owner/name:Q8_0", "owner/name:Q8_0"),
        ("https://huggingface.co/owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/", "owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "owner/name"),
        ("http://www.huggingface.co/owner/name:Q4_0", "owner/name:Q4_0"),
        ("HuggingFace.co/Owner/Name", "Owner/Name"),
        (str(Path("https://huggingface.co/owner/name")), "owner/name"),
        ("huggingface.co/owner", "huggingface.co/owner"),
        ("smollm2", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
        ("SmolLM2:135M", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("qwen2.5:0.5b:Q8_0", "Qwen/Qwen2.5-0.5B-Instruct:Q8_0"),
        ("qwen2.5:Q8_0", "Qwen/Qwen2.5-1.5B-Instruct:Q8_0"),
        ("qwen2.5:latest", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("m.eqf", "m.eqf"),
        ("folder/m.gguf", "folder/m.gguf"),
        ("", ""),
    ],
)
def test_resolving(text, model):
    assert model_names.resolve(text) == model


@pytest.mark.parametrize("tag", ["qwen2.5:9b", "qwen2.5:7b-instruct-q4_K_M"])
def test_a_size_that_there_is_not_is_no_type(tag):
    """Another size would be fetched, only to find that there is no such type."""
    with pytest.raises(
        NotFoundError, match=rf"^{tag}: there is no such size: there are qwen2\.5:0\.5b, .*qwen2\.5:14b, "
    ):
        model_names.resolve(tag)


def test_a_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert model_names.resolve("smollm2") == "smollm2"


def test_beginnings():
    names = ["Qwen-Qwen2.5-0.5B-Instruct", "people-stories", "people-stories-Q8_0"]
    assert model_names.among("qwen2.5", names) == model_names.among("Qwen-Q", names) == names[0]
    assert model_names.among("people-stories", names) == names[1], "exactly this one"
    assert model_names.among("0.5B", names) is None
    with pytest.raises(UsageError, match="stor: may be people-stories or people-stories-Q8_0"):
        model_names.among("stor", names)


def test_what_is_said_of_a_name_that_nothing_has():
    error = model_names.unknown("smolm2", [])
    assert isinstance(error, NotFoundError) and "did you mean smollm2?" in str(error)
    assert "give a file, a folder, or owner/name" in str(model_names.unknown("xyzzy", []))


def test_the_table():
    names = [row.name for row in recommended.TABLE]
    assert len(set(names)) == len(names) and set(recommended.USUAL.values()) <= set(names)
    assert {name.partition(":")[0] for name in names} == set(recommended.USUAL)
    memory = [row.memory for row in recommended.TABLE]
    assert recommended.fitting(memory[0]) == [recommended.TABLE[0]] and recommended.fitting(0) == []
    row = recommended.find("QWEN2.5:0.5B")
    assert row is not None and row.memory == int(494e6 * 5 / 8) + 4096 * 12288 + (150 << 20)
    assert recommended.find("qwen2.5:9b") is None
