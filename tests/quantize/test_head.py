"""Whether the head is the embedding: what is stored decides, and a contradiction is told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoints
from safetensors.numpy import save_file

from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError
from edgeq.quantize.converted import Report
from edgeq.quantize.pipeline import convert

# Architectures whose checkpoints call embedding, head and the flag something else
CASES = ["llama", "gpt2", "gpt-neox", "falcon", "lfm2", "phi", "gemma3"]
EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")
Tensors = dict[str, np.ndarray]


def written(folder: Path, config: Mapping[str, Any], tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata)
    return folder


def checkpoint(case: str) -> tuple[dict[str, Any], Tensors, str, str]:
    """(configuration, tensors, the embedding's name, the head's) of an untied model."""
    config, tensors, _ = random_checkpoints.make(case)
    embedding = next(name for name in tensors if name.endswith(EMBEDDINGS))
    head = "embed_out.weight" if case == "gpt-neox" else "lm_head.weight"
    tensors.setdefault(head, np.roll(tensors[embedding], 1, 0))
    return config | {"tie_word_embeddings": False}, tensors, embedding, head


def converted(source: Path) -> tuple[Report, dict[str, bytes], bool]:
    """The report, the file's tensors, and whether its configuration says that head and embedding are one."""
    out = source.parent / "m.eqf"
    report = convert(source, out, "Q8_0", threads=1, allow_no_tokenizer=True)
    with open_file(out) as file:
        tied = file.metadata["config"]["tie_word_embeddings"]
        return report, {name: file.data(name).tobytes() for name in file.tensors}, tied


@pytest.mark.parametrize("case", CASES)
def test_what_is_stored_decides(case: str, tmp_path: Path) -> None:
    config, tensors, embedding, head = checkpoint(case)
    report, expected, _ = converted(written(tmp_path / "one", config, tensors))
    assert report.notes == [] and "output.weight" in expected
    config["tie_word_embeddings"] = True
    if case == "lfm2":
        config["tie_embedding"] = True
    report, found, tied = converted(written(tmp_path / "one", config, tensors))
    assert (found, tied) == (expected, False)
    note = f"{head} differs from {embedding}: it is the head, though config.json says that they are one"
    assert report.notes == [note]


@pytest.mark.parametrize("case", CASES)
def test_a_head_that_is_the_embedding(case: str, tmp_path: Path) -> None:
    """Stored once under either name, or twice, with another name noted or not: one matrix, and no news."""
    config, tensors, embedding, head = checkpoint(case)
    config["tie_word_embeddings"] = True
    values, others = tensors[embedding], {k: v for k, v in tensors.items() if k not in (embedding, head)}
    others.pop(head, None)
    files = []
    for have, metadata in (
        ([embedding], None),
        ([head], None),
        ([head], {embedding: head}),
        ([embedding], {head: embedding}),
        ([embedding, head], None),
    ):
        stored = others | {name: values.copy() for name in have}
        report, found, tied = converted(written(tmp_path / "one", config, stored, metadata))
        assert (report.notes, report.unused, tied) == ([], [], True)
        files.append(found)
    assert "output.weight" not in files[0] and all(file == files[0] for file in files)


def test_the_last_weight_may_differ(tmp_path: Path) -> None:
    config, tensors, embedding, head = checkpoint("llama")
    tensors[head] = tensors[embedding].copy()
    tensors[head][-1, -1] += 1
    report, found, tied = converted(written(tmp_path / "one", {**config, "tie_word_embeddings": True}, tensors))
    assert len(report.notes) == 1 and not tied and "output.weight" in found


def test_a_head_that_is_not_stored(tmp_path: Path) -> None:
    """As llama.cpp has it; models that were trained to embed texts are saved so. Lacking more, they are refused."""
    config, tensors, embedding, head = checkpoint("llama")
    del tensors[head]
    report, found, tied = converted(written(tmp_path / "one", config, tensors))
    assert report.notes == [f"no {head} is stored: {embedding} is the head too, though config.json says that it is not"]
    assert tied and "output.weight" not in found
    del tensors["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"has no tensor 'model.norm.weight' \(and 1 more\)"):
        converted(written(tmp_path / "one", config, tensors))


def test_the_head_of_a_larger_model(tmp_path: Path) -> None:
    """Gemma 3 with eyes has its language model's configuration inside, and may have its head beside it."""
    config, tensors, _, head = checkpoint("gemma3")
    _, expected, _ = converted(written(tmp_path / "one", config, tensors))
    larger = {"model_type": "gemma3", "text_config": {**config, "tie_word_embeddings": True}}
    inside = {f"language_model.{name}": weights for name, weights in tensors.items()}
    report, found, tied = converted(written(tmp_path / "one", larger, inside))
    assert (found, tied) == (expected, False) and report.notes[0].startswith(f"language_model.{head} differs from ")
