"""LFM2-VL sees: rows, prompts, logits and text against transformers, of images of many shapes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import seeing_lfm2
from seeing_lfm2 import IMAGE, NAMES, PLAIN, SIZES, WHOLE, picture
from seeing_model import QUESTION
from seeing_talks import last_logits

import edgeq
from edgeq.container.part_file import PartFile
from edgeq.container.reader import open_file
from edgeq.engine.seeing import Places
from edgeq.errors import CheckpointError, FormatError, UnsupportedError, UsageError
from edgeq.models import images
from edgeq.models.image_tower import TOWER
from edgeq.quantize.pipeline import convert
from edgeq.runtime.kernel_state import needed
from edgeq.vision.stretching import stretched

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "lfm2_images.npz")
TALKS = [*SIZES, "wide+as it is", "tall+tall+narrow"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfm2")
    convert(seeing_lfm2.write(folder / "m"), folder / "m.eqf", "F32")
    return folder / "m.eqf"


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[edgeq.Model]:
    with edgeq.load(path, threads=2) as model:
        yield model


def talk(names: str, question: str = QUESTION) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": picture(name)} for name in names.split("+") if name]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def rows(model: edgeq.Model, names: str) -> np.ndarray:
    eyes = model._eyes
    assert eyes is not None
    return np.concatenate([eyes.rows(eyes.look(picture(name))) for name in names.split("+")])


def logits(model: edgeq.Model, names: str, *ends: int, **how: Any) -> np.ndarray:
    return last_logits(model, talk(names), *ends, **how)


def same_as_transformers(model: edgeq.Model, names: str, label: str) -> None:
    assert np.abs(rows(model, names)[:, ::4] - GOLDEN[f"{label} rows"]).max() <= 1e-3
    assert model.chat_tokens(talk(names)) == GOLDEN[f"{label} prompt"].tolist()
    assert np.abs(logits(model, names) - GOLDEN[f"{label} logits"]).max() <= 1e-3
    answer = model.chat(talk(names), 12, temperature=0)
    assert answer.text is not None
    assert answer.tokens == GOLDEN[f"{label} greedy"].tolist()


def test_the_golden_file_is_of_this_model() -> None:
    assert GOLDEN["digest"] == seeing_lfm2.digest(), "run tools/make_image_golden.py"


@pytest.mark.parametrize("names", TALKS)
def test_a_chat_is_that_of_transformers(model: edgeq.Model, names: str) -> None:
    same_as_transformers(model, names, names)


def test_a_value_that_is_no_number_is_named_where_the_checkpoint_has_it(tmp_path: Path) -> None:
    """Of the matrix of pixels, whose columns are in another order there."""
    folder, name = seeing_lfm2.write(tmp_path / "m"), "model.vision_tower.embeddings.patch_embedding.weight"
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors[name][33, 52] = np.nan
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"patch_embedding\.weight.*\[33, 52\]"):
        convert(folder, tmp_path / "m.eqf", "F32")


def test_images_that_are_not_split(tmp_path: Path) -> None:
    convert(seeing_lfm2.write(tmp_path / "m", WHOLE), tmp_path / "m.eqf", "F32")
    with edgeq.load(tmp_path / "m.eqf", threads=2) as model:
        same_as_transformers(model, "wide", "whole wide")


def test_another_projector(tmp_path: Path) -> None:
    """Without a norm and biases, with another activation; the encoder by the names of older checkpoints."""
    folder = seeing_lfm2.write(tmp_path / "m", **PLAIN)
    before, after = "model.vision_tower.", "model.vision_tower.vision_model."
    old = {name.replace(before, after): values for name, values in seeing_lfm2.weights(**PLAIN).items()}
    safetensors.numpy.save_file(old, folder / "model.safetensors")
    assert not convert(folder, tmp_path / "m.eqf", "F32").notes
    with edgeq.load(tmp_path / "m.eqf", threads=2) as model:
        assert not {"mm.input_norm.weight", "mm.1.bias", "mm.2.bias"} & {*model.file.tensors}
        assert np.abs(rows(model, "tall")[:, ::4] - GOLDEN["plain tall rows"]).max() <= 1e-3


@pytest.mark.parametrize("beside", [False, True])
def test_split_anywhere_to_the_same_bits(model: edgeq.Model, beside: bool) -> None:
    prompt, expected = model.chat_tokens(talk("wide+as it is")), logits(model, "wide+as it is")
    first = prompt.index(IMAGE)
    for ends in ((), (1,), (first, first + 5), (first - 2, first + 16, first + 17), (len(prompt) - 9,)):
        np.testing.assert_array_equal(logits(model, "wide+as it is", *ends, beside=beside), expected)


def test_texts_with_images_computed_together(path: Path) -> None:
    with edgeq.load(path, threads=2) as model:
        found = model.batch([talk(names) for names in TALKS], 12, temperature=0)
        assert [answer.text for answer in found] == [model.chat(talk(names), 12, temperature=0).text for names in TALKS]


def test_rows_do_not_depend_on_what_was_seen_before(path: Path) -> None:
    """Positions are those of the tile at hand, whatever the order and the threads."""
    for threads, names in ((1, ["as it is", "upright", "tall"]), (3, ["tall", "narrow", "as it is", "upright"])):
        with edgeq.load(path, threads=threads) as model:
            found = {name: rows(model, name) for name in names}
        for name in ("tall", "upright", "as it is"):
            if threads == 1:
                np.save(path.parent / f"{name}.npy", found[name])
            np.testing.assert_array_equal(found[name], np.load(path.parent / f"{name}.npy"))


def test_quantized(path: Path, tmp_path: Path) -> None:
    convert(path.parent / "m", tmp_path / "q.eqf", "Q4_K")
    with edgeq.load(tmp_path / "q.eqf", threads=2) as model, edgeq.load(tmp_path / "q.eqf", threads=3) as other:
        types = {name: info.type for name, info in model.file.tensors.items()}
        assert types["v.position_embd.weight"] == types["mm.input_norm.weight"] == "F32"
        assert types["v.patch_embd.weight"] == types["mm.1.weight"] == "F16" != types["blk.0.ffn_up.weight"]
        found = rows(model, "wide")
        np.testing.assert_array_equal(found, rows(other, "wide"))
        expected = GOLDEN["wide rows"]
        assert np.sqrt(np.mean((found[:, ::4] - expected) ** 2)) <= 0.03 * expected.std()
        np.testing.assert_array_equal(logits(model, "wide"), logits(other, "wide"))


def test_names_of_the_images_tokens_are_text(model: edgeq.Model) -> None:
    """Where somebody says them, with images and without."""
    said = "is <image> or <|image_start|> a tag, or <|img_thumbnail|>?"
    for names, count in (("", 0), ("tall", 12)):
        tokens = model.chat_tokens(talk(names, said))
        assert said in model.tokenizer.decode(tokens, special=True)
        assert tokens.count(IMAGE) == count
        assert {*NAMES} & {*tokens} == ({IMAGE, 264, 265} if names else set())


def test_an_image_too_long_for_its_other_edge(model: edgeq.Model) -> None:
    long = np.zeros((1, 4000, 3), np.uint8)
    with pytest.raises(UsageError, match=r"^an image of 4000 x 1 pixels is too long for its other edge: crop it"):
        model.chat([{"role": "user", "content": [{"type": "image", "image": long}]}], 1)


def test_positions_of_another_square_or_type_are_refused(path: Path) -> None:
    with open_file(path) as file:
        part, seen = PartFile(file, TOWER), images(file.metadata["config"])
        assert seen is not None
        name = "position_embd.weight"
        for changed in ({"shape": (36, 60)}, {"type": "F16"}):
            part.tensors[name] = replace(file.tensors[f"{TOWER}{name}"], **changed)
            with pytest.raises(FormatError, match=r"position_embd\.weight of the image encoder is no F32 \[25, 60\]"):
                Places(part, seen.tower, 80, stretched)
        del part.tensors[name]
        with pytest.raises(FormatError, match="convert the checkpoint again"):
            Places(part, seen.tower, 80, stretched)


def test_bundles_have_the_kernels_of_images(path: Path) -> None:
    with open_file(path) as file:
        assert {*needed(file, "x86-64-v3")} >= {"positions", "layer_norm"}


@pytest.mark.parametrize(
    ("changed", "own", "what"),
    [
        ({"vision_feature_layer": -2}, {}, "vision_feature_layer -2"),
        ({}, {"num_patches": 24}, "num_patches 24"),
        ({}, {"model_type": "siglip_vision_model"}, "model_type 'siglip_vision_model'"),
        ({"projector_hidden_act": "tanh"}, {}, "projector_hidden_act 'tanh'"),
        ({}, {"num_channels": 1}, "num_channels 1"),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], own: dict[str, Any], what: str) -> None:
    config = {**seeing_lfm2.CONFIG, **changed}
    with pytest.raises(UnsupportedError, match=what):
        images({**config, "vision_config": {**config["vision_config"], **own}})


def test_the_published_model() -> None:
    """LFM2-VL 450M."""
    vision = {"model_type": "siglip2_vision_model", "num_hidden_layers": 12}
    text = {**seeing_lfm2.CONFIG["text_config"], "hidden_size": 1024, "num_attention_heads": 16}
    found = images({"model_type": "lfm2_vl", "text_config": text, "vision_config": vision})
    assert found is not None and (found.patch, found.joined, found.token) == (16, 2, 396)
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    assert shapes["v.patch_embd.weight"] == (768, 768) and shapes["v.position_embd.weight"] == (256, 768)
    assert shapes["mm.1.weight"] == (2560, 3072) and shapes["mm.2.weight"] == (1024, 2560)
    assert shapes["mm.input_norm.bias"] == (3072,) and "v.blk.11.ffn_up.weight" in shapes
