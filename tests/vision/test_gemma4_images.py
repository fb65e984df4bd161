"""Gemma 4 sees: values, rows, prompts, logits and text of images of any shape against transformers; the same bits
however a prompt is split, and whatever else is in a pass."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import seeing_gemma4
from seeing_gemma4 import CONFIGS, IMAGE, ROWS, processor
from seeing_model import QUESTION, SIZES, picture
from seeing_talks import last_logits

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, UnsupportedError, UsageError
from edgeq.models import architecture, images
from edgeq.quantize.pipeline import convert
from edgeq.runtime.program import Part, Program
from edgeq.vision.proportional import Proportional, read_proportional

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "gemma4_images.npz")
TALKS = [*SIZES, "wide square", "tall tall narrow"]
SQUARES = {"small": (4, 3), "large": (7, 2)}  # pixels of a patch, patches that are joined


@pytest.fixture(scope="module", params=CONFIGS)
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, which: str) -> Path:
    folder = tmp_path_factory.mktemp("gemma4")
    report = convert(seeing_gemma4.write(folder / "m", which), folder / "m.eqf", "F32")
    assert not report.notes
    return folder / "m.eqf"


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[edgeq.Model]:
    with edgeq.load(path, threads=2) as model:
        yield model


def talk(names: str, question: str = QUESTION) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": picture(name)} for name in names.split()]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def read(which: str, **settings: Any) -> Proportional:
    said = json.dumps({"image_processor": {**processor(which), **settings}}).encode()
    return read_proportional({"processor_config.json": said}, "m", *SQUARES[which], ROWS)


def logits(model: edgeq.Model, names: str, *ends: int, **how: Any) -> np.ndarray:
    return last_logits(model, talk(names), *ends, **how)


def test_the_golden_file_is_of_these_models() -> None:
    assert GOLDEN["digest"] == seeing_gemma4.digest(), "run tools/make_image_golden.py"


@pytest.mark.parametrize("names", TALKS)
def test_values_are_those_of_transformers(which: str, names: str) -> None:
    """Which has them pixel by pixel, and from 0 to 1."""
    how, (size, _) = read(which), SQUARES[which]
    found = []
    for name in names.split():
        (tile,) = how.tiles(picture(name))
        down, across = tile.shape[0] // size, tile.shape[1] // size
        cut = tile.reshape(down, size, across, size, 3).swapaxes(1, 2).reshape(down * across, -1)
        found.append((cut * np.float64(1 / 255)).astype(np.float32))
        patches = how.values.patches(tile, size).reshape(len(cut), 3, -1).swapaxes(1, 2).reshape(len(cut), -1)
        np.testing.assert_array_equal(patches, 2 * (found[-1] - np.float32(0.5)))
    assert hashlib.sha256(np.concatenate(found).tobytes()).hexdigest() == GOLDEN[f"{which} {names} pixels"]


@pytest.mark.parametrize(
    ("size", "squares"),
    [((840, 840), (8, 8)), ((1, 5000), (1, 70)), ((5000, 3), (70, 1)), ((1, 30), (1, 45)), ((2, 2), (8, 8))],
)
def test_images_keep_their_shape(size: tuple[int, int], squares: tuple[int, int]) -> None:
    how = read("small")
    assert how.layout(*size).rows == squares[0] * squares[1]
    assert how.tiles(np.zeros((*size, 3), np.uint8)).shape[1:3] == tuple(12 * edge for edge in squares)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"do_normalize": True}, "do_normalize"),
        ({"do_resize": False}, "do_resize"),
        ({"max_soft_tokens": 71}, "max_soft_tokens"),
        ({"max_soft_tokens": 140}, "max_soft_tokens"),  # more than config.json says
        ({"max_soft_tokens": [70]}, "max_soft_tokens"),
        ({"patch_size": 5}, "patch_size"),
        ({"pooling_kernel_size": 2}, "pooling_kernel_size"),
        ({"resample": 7}, "resample"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^m: images: {what}"):
        read("small", **settings)


def test_settings_that_say_nothing_mean_what_transformers_does() -> None:
    how = read_proportional({"preprocessor_config.json": b"{}"}, "m", 16, 3, 280)
    assert (how.side, how.most, how.values.filter, how.values.rescale) == (48, 280, 3, 1 / 255)


@pytest.mark.parametrize("names", TALKS)
def test_a_chat_is_that_of_transformers(model: edgeq.Model, which: str, names: str) -> None:
    eyes = model._eyes
    assert eyes is not None
    rows = [eyes.rows(eyes.look(picture(name))) for name in names.split()]
    assert [len(each) for each in rows] == GOLDEN[f"{which} {names} counts"].tolist()
    assert np.abs(np.concatenate(rows)[::7] - GOLDEN[f"{which} {names} rows"]).max() <= 1e-3
    assert model.chat_tokens(talk(names)) == GOLDEN[f"{which} {names} prompt"].tolist()
    assert np.abs(logits(model, names) - GOLDEN[f"{which} {names} logits"]).max() <= 1e-3
    answer = model.chat(talk(names), 12, temperature=0)
    assert answer.text is not None
    assert answer.tokens == GOLDEN[f"{which} {names} greedy"].tolist()


def test_rows_of_an_image_see_one_another_in_windows(model: edgeq.Model, which: str) -> None:
    """In the larger models, and nowhere else: with other layers the logits are others."""
    own = architecture(CONFIGS[which])
    seen = [layer.mixer.heads.whole_images for layer in own.layers]  # type: ignore[union-attr]
    assert seen == ([ROWS, 0] * 2 if which == "large" else [0] * 4)
    assert own.heads.whole_images == max(seen)
    for whole in (0, ROWS):
        layers = [layer._replace(mixer=layer.mixer.seeing(whole)) for layer in own.layers]  # type: ignore[union-attr]
        other = replace(own, layers=layers, attention=own.attention.seeing(whole))  # type: ignore[union-attr]
        program = Program(model.file, threads=2, model=other)
        try:
            apart = np.abs(logits(model, "wide", program=program) - GOLDEN[f"{which} wide logits"]).max()
        finally:
            program.close()
        assert (apart > 0.1) == (which == "large" or whole > 0)


@pytest.mark.parametrize("beside", [False, True])
def test_split_anywhere_to_the_same_bits(model: edgeq.Model, which: str, beside: bool) -> None:
    """Of the larger models around images, of the others also within them."""
    prompt, expected = model.chat_tokens(talk("wide square")), logits(model, "wide square")
    eyes = model._eyes
    assert eyes is not None
    first, count = prompt.index(IMAGE), eyes.look(picture("wide")).layout.rows
    second = prompt.index(IMAGE, first + count)
    splits: list[tuple[int, ...]] = [(), (1,), (first, first + count), (first - 2, second), (second, second + ROWS)]
    if which == "small":
        splits += [(first + 1, second + 7), tuple(range(1, len(prompt), 13))]
    for ends in splits:
        ends = tuple(end for end in ends if end < len(prompt))
        np.testing.assert_array_equal(logits(model, "wide square", *ends, beside=beside), expected)


def test_no_pass_splits_an_image(path: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many rows as it may have, however few a pass has for prompts; others' splits change nothing either."""
    with edgeq.load(path, threads=2) as model:
        expected = [model.chat(talk(names), 6, temperature=0).text for names in TALKS]
    lengths, step = set[int](), Program.step

    def watched(self: Program, parts: list[Part], *more: Any) -> Any:
        for part in parts:
            own = part.items[part.items < 0] if part.items.ndim == 1 else np.zeros(0, np.int64)
            for number in np.unique((-1 - own) >> 20):
                rows = (-1 - own[(-1 - own) >> 20 == number]) % (1 << 20)
                if which == "large":
                    assert (rows.reshape(-1, rows.max() + 1) == np.arange(rows.max() + 1)).all()
                lengths.add(len(rows))
        return step(self, parts, *more)

    monkeypatch.setattr(Program, "step", watched)
    for name in ("batch.LEAST_PIECE", "pace.LEAST_PIECE", "pace.LARGEST_PIECE"):
        monkeypatch.setattr(f"edgeq.runtime.{name}", 3)
    with edgeq.load(path, threads=2) as model:
        found = model.batch([talk(names) for names in TALKS], 6, temperature=0)
        assert [answer.text for answer in found] == expected
    assert (min(lengths) > 50) == (which == "large")


def test_images_of_several_shapes_share_the_eyes(model: edgeq.Model, which: str) -> None:
    """What was seen before leaves nothing behind."""
    eyes = model._eyes
    assert eyes is not None
    looks = [eyes.look(picture(name)) for name in (*SIZES, *reversed(SIZES))]
    found = [np.concatenate([eyes._of_tile(tile) for tile in eyes.preparation.tiles(picture(n))]) for n in SIZES]
    again = [np.concatenate([eyes._of_tile(tile) for tile in eyes.preparation.tiles(picture(n))]) for n in SIZES]
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [look.layout.rows for look in looks[: len(found)]] == [len(rows) for rows in found]


def test_a_grid_that_there_are_no_positions_for(model: edgeq.Model, which: str) -> None:
    eyes, most = model._eyes, ROWS * SQUARES[which][1]
    assert eyes is not None
    tower, _ = eyes._programs()
    rows = np.zeros((most + 1, 3 * SQUARES[which][0] ** 2), np.float32)
    for across in (0, 1, most + 1):
        tower.rewind(0)
        with pytest.raises(UsageError, match=f"the model knows {most} places"):
            tower.eval(rows, across=across)
    for across in (1, most):
        tower.rewind(0)
        tower.eval(rows[:most], across=across)


def test_names_of_the_images_tokens_are_text(model: edgeq.Model) -> None:
    """Where somebody says them, with images and without."""
    said = "is <|image|> a tag?"
    for names in ("", "wide"):
        tokens = model.chat_tokens(talk(names, said))
        assert said in model.tokenizer.decode(tokens, special=True)
        assert (tokens.count(IMAGE) > 0) == bool(names)
        assert model.chat(talk(names, said), 2, temperature=0).text is not None


def test_quantized(path: Path, which: str, tmp_path: Path) -> None:
    """Positions and bounds stay as they are, a bound without an end is one that nothing reaches."""
    convert(path.parent / "m", tmp_path / "q.eqf", "Q4_K_M")
    with open_file(tmp_path / "q.eqf") as file:
        types = {name: info.type for name, info in file.tensors.items()}
        bounds = [file.data(name).view(np.float32)[0] for name in types if name.endswith(("_min", "_max"))]
    assert types["v.position_embd_x.weight"] == types["v.position_embd_y.weight"] == "F32"
    assert len(bounds) == (3 * 7 * 4 if which == "small" else 0)
    assert not bounds or (max(bounds) == np.float32(1e18) == -min(bounds))
    with edgeq.load(tmp_path / "q.eqf", threads=2) as model, edgeq.load(tmp_path / "q.eqf", threads=3) as other:
        own = [each._eyes.rows(each._eyes.look(picture("wide"))) for each in (model, other) if each._eyes]
        np.testing.assert_array_equal(*own)
        expected = GOLDEN[f"{which} wide rows"]
        assert np.sqrt(np.mean((own[0][::7] - expected) ** 2)) <= 0.03 * expected.std()
        np.testing.assert_array_equal(logits(model, "wide"), logits(other, "wide"))


@pytest.mark.parametrize(
    ("outer", "vision", "error", "what"),
    [
        ({}, {"head_dim": 18}, CheckpointError, "head_dim is 18"),
        ({}, {"num_key_value_heads": 2}, CheckpointError, "3 attention heads cannot share 2"),
        ({}, {"rope_parameters": {"rope_type": "yarn"}}, UnsupportedError, "rope_parameters .*yarn"),
        ({}, {"rope_parameters": [1]}, UnsupportedError, "rope_parameters"),
        ({}, {"hidden_activation": "swish9"}, UnsupportedError, "hidden_activation"),
        ({}, {"position_embedding_size": 209}, UnsupportedError, "images may be 210 patches wide"),
        ({}, {"model_type": "gemma4_unified_vision"}, UnsupportedError, "model_type"),
        ({"vision_soft_tokens_per_image": 2000}, {}, CheckpointError, "vision_soft_tokens_per_image"),
        (
            {"text_config": {**CONFIGS["small"]["text_config"], "pad_token_id": 3}},
            {},
            UnsupportedError,
            "pad_token_id 3",
        ),
    ],
)
def test_what_is_not_computed_is_refused(
    outer: dict[str, Any], vision: dict[str, Any], error: type[Exception], what: str
) -> None:
    config = CONFIGS["small"]
    with pytest.raises(error, match=what):
        images({**config, **outer, "vision_config": {**config["vision_config"], **vision}})


def test_what_a_configuration_leaves_out() -> None:
    """As transformers has it: its smallest class is that of the model of 2 B weights."""
    found = images({"model_type": "gemma4", "text_config": {**CONFIGS["small"]["text_config"]}})
    assert found is not None
    assert (found.patch, found.joined, found.rows, found.token) == (16, 3, 280, 258880)
    assert found.tensors["v.position_embd_x.weight"].shape == (840, 768)
    assert found.tensors["v.blk.15.attn_q.weight"].shape == (768, 768)
    assert found.tower.max_position_embeddings == 2520


def test_unified_models_see_nothing() -> None:
    assert images({**CONFIGS["small"], "model_type": "gemma4_unified"}) is None


def written(folder: Path, name: str, place: tuple[int, ...], value: float) -> Path:
    """The small checkpoint with another value in the tensor `name`."""
    weights = seeing_gemma4.weights("small")
    weights[name][place] = value
    seeing_gemma4.write(folder, "small")
    safetensors.numpy.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_damaged_value_is_named_where_the_checkpoint_has_it(tmp_path: Path) -> None:
    name = "model.vision_tower.patch_embedder.input_proj.weight"
    with pytest.raises(CheckpointError, match=rf"{name}' holds nan at \[3, 20\]"):
        convert(written(tmp_path / "m", name, (3, 20), np.nan), tmp_path / "m.eqf", "F32")


def test_bounds_that_0_is_not_within_are_refused(tmp_path: Path) -> None:
    name = "model.vision_tower.encoder.layers.1.mlp.up_proj.input_min"
    convert(written(tmp_path / "m", name, (), 0.5), tmp_path / "m.eqf", "F32")
    with edgeq.load(tmp_path / "m.eqf") as model:
        assert model.chat([{"role": "user", "content": "a"}], 2, temperature=0).text is not None
        with pytest.raises(UnsupportedError, match=r"blk.1.ffn_up.input_min is 0.5, .* bounds that 0 is not within"):
            model.chat(talk("wide"), 2)
