"""Gemma 3 sees: rows, prompts, logits and text against transformers, and images that no pass and no memory splits."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seeing_gemma
from seeing_gemma import IMAGE, PREPROCESSOR, ROWS
from seeing_model import QUESTION, SIZES, picture
from seeing_talks import last_logits

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import UnsupportedError
from edgeq.models import architecture
from edgeq.quantize.pipeline import convert
from edgeq.runtime.program import Part, Program
from edgeq.runtime.request import Request
from edgeq.vision.preparation import Settings
from edgeq.vision.whole import Whole, read_whole

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "gemma_images.npz")
TALKS = [*SIZES, "wide square", "tall tall narrow"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    convert(seeing_gemma.write(folder / "m"), folder / "m.eqf", "F32")
    return folder / "m.eqf"


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[edgeq.Model]:
    with edgeq.load(path, threads=2) as model:
        yield model


def talk(names: str, question: str = QUESTION) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": picture(name)} for name in names.split()]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def whole(settings: dict[str, Any]) -> Whole:
    import json

    return read_whole({"preprocessor_config.json": json.dumps({**PREPROCESSOR, **settings}).encode()}, "m", 58, ROWS)


def logits(model: edgeq.Model, names: str, *ends: int, **how: Any) -> np.ndarray:
    return last_logits(model, talk(names), *ends, **how)


def test_the_golden_file_is_of_this_model() -> None:
    assert GOLDEN["digest"] == seeing_gemma.digest(), "run tools/make_image_golden.py"


@pytest.mark.parametrize("names", TALKS)
def test_values_are_those_of_transformers(names: str) -> None:
    how = whole({})
    tiles = np.concatenate([how.tiles(picture(name)) for name in names.split()])
    cut = np.stack([[how.values.table[c][tile[:, :, c]] for c in range(3)] for tile in tiles])
    assert hashlib.sha256(cut.tobytes()).hexdigest() == GOLDEN[f"{names} pixels"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"do_pan_and_scan": True}, "do_pan_and_scan"),
        ({"size": {"height": 58, "width": 57}}, "size"),
        ({"size": {"longest_edge": 58}}, "size"),
        ({"do_resize": False}, "do_resize"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^m: images: {what}"):
        whole(settings)


def test_settings_that_say_nothing_mean_what_transformers_does() -> None:
    usual = Settings({"preprocessor_config.json": b"{}"}, "m").values(2)
    assert (usual.filter, usual.mean, usual.rescale) == (2, (0.5, 0.5, 0.5), 1 / 255)


@pytest.mark.parametrize("names", TALKS)
def test_a_chat_is_that_of_transformers(model: edgeq.Model, names: str) -> None:
    eyes = model._eyes
    assert eyes is not None
    rows = np.concatenate([eyes.rows(eyes.look(picture(name))) for name in names.split()])
    assert np.abs(rows - GOLDEN[f"{names} rows"]).max() <= 1e-3
    assert model.chat_tokens(talk(names)) == GOLDEN[f"{names} prompt"].tolist()
    assert np.abs(logits(model, names) - GOLDEN[f"{names} logits"]).max() <= 1e-3
    answer = model.chat(talk(names), 12, temperature=0)
    assert answer.text is not None
    assert answer.tokens == GOLDEN[f"{names} greedy"].tolist()


def test_rows_of_an_image_see_one_another(model: edgeq.Model) -> None:
    """Without that the logits are others: what is compared above tells the two apart."""
    own = architecture(seeing_gemma.CONFIG)
    blind = [layer._replace(mixer=layer.mixer.seeing(0)) for layer in own.layers]  # type: ignore[attr-defined]
    program = Program(model.file, threads=2, model=replace(own, layers=blind))  # type: ignore[type-var]
    try:
        assert np.abs(logits(model, "wide", program=program) - GOLDEN["wide logits"]).max() > 0.1
    finally:
        program.close()


@pytest.mark.parametrize("names", [seeing_gemma.HUB, seeing_gemma.LATER], ids=["hub", "later"])
def test_a_checkpoint_may_have_either_names(path: Path, tmp_path: Path, names: dict[str, str]) -> None:
    report = convert(seeing_gemma.write(tmp_path / "m", names), tmp_path / "m.eqf", "F32")
    assert not report.notes
    with open_file(tmp_path / "m.eqf") as one, open_file(path) as other:
        assert one.tensors.keys() == other.tensors.keys()
        for name in one.tensors:
            assert (one.data(name) == other.data(name)).all()


@pytest.mark.parametrize("beside", [False, True])
def test_split_anywhere_around_images_to_the_same_bits(model: edgeq.Model, beside: bool) -> None:
    prompt, expected = model.chat_tokens(talk("wide square")), logits(model, "wide square")
    first = prompt.index(IMAGE)
    second = prompt.index(IMAGE, first + ROWS)
    for ends in ((), (1,), (first, first + ROWS), (first - 2, second), (second, second + ROWS, second + ROWS + 1)):
        np.testing.assert_array_equal(logits(model, "wide square", *ends, beside=beside), expected)


def test_no_pass_splits_an_image(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it kept waiting by others, however few rows a pass has for prompts; what is told is the same."""
    with edgeq.load(path, threads=2) as model:
        expected = [model.chat(talk(names), 6, temperature=0).text for names in TALKS]
    seen: list[tuple[int, int]] = []
    step = Program.step

    def watched(self: Program, parts: list[Part], *more: Any) -> Any:
        for part in parts:
            own = np.flatnonzero(np.asarray(part.items) < 0) if part.items.ndim == 1 else []
            seen.extend((int(part.items[at]) % ROWS, len(part.items)) for at in own)
            rows = (-1 - part.items[own]) % (1 << 20) if len(own) else np.zeros(0, int)
            assert len(rows) % ROWS == 0 and (rows.reshape(-1, ROWS) == np.arange(ROWS)).all()
        return step(self, parts, *more)

    monkeypatch.setattr(Program, "step", watched)
    monkeypatch.setattr("edgeq.runtime.batch.LEAST_PIECE", 3)
    monkeypatch.setattr("edgeq.runtime.pace.LEAST_PIECE", 3)
    monkeypatch.setattr("edgeq.runtime.pace.LARGEST_PIECE", 3)
    with edgeq.load(path, threads=2) as model:
        found = model.batch([talk(names) for names in TALKS], 6, temperature=0)
        assert [answer.text for answer in found] == expected
    assert seen


def test_what_is_kept_ends_at_no_place_within_an_image(model: edgeq.Model) -> None:
    first = model.chat(talk("wide"), 4, temperature=0)
    assert first.text is not None
    again = model.chat(talk("wide"), 4, temperature=0)
    assert again.text == first.text
    assert again.timings.cached_tokens == again.prompt_tokens - 1
    further = [*talk("wide"), {"role": "assistant", "content": first.text}, *talk("square", "and now?")]
    second = model.chat(further, 4, temperature=0)
    assert second.text is not None
    assert second.timings.cached_tokens >= model.chat_tokens(talk("wide")).index(IMAGE) + ROWS
    other = model.chat(talk("square"), 4, temperature=0)
    assert other.text is not None
    assert other.timings.cached_tokens <= model.chat_tokens(talk("square")).index(IMAGE)


def test_names_of_the_images_tokens_are_text(model: edgeq.Model) -> None:
    """Where somebody says them, with images and without."""
    said = "is <start_of_image> or <image_soft_token> a tag?"
    for names in ("", "wide"):
        tokens = model.chat_tokens(talk(names, said))
        assert said in model.tokenizer.decode(tokens, special=True)
        assert tokens.count(IMAGE) == ROWS * len(names.split())
        assert model.chat(talk(names, said), 2, temperature=0).text is not None


def test_a_piece_takes_an_image_or_stops_before_it(model: edgeq.Model) -> None:
    sight = model.sight([picture("wide")])
    assert sight is not None
    mixed = sight.mixed(model.chat_tokens(talk("wide")))
    at, request = mixed.tokens.index(IMAGE), Request([], 1, lambda *_: (0, None), mixed=mixed)
    assert request.piece(at + 5) == request.piece(at) == at
    assert request.piece(at + ROWS) == at + ROWS
    request.sequence = model.session.program.sequence()
    request.sequence.position = at
    assert [request.piece(count) for count in (1, ROWS - 1, ROWS + 1)] == [ROWS, ROWS, ROWS + 1]


def test_a_pass_has_room_for_an_image(path: Path) -> None:
    with open_file(path) as file:
        program = Program(file, threads=1, batch=4)
        assert program.batch == ROWS + 1
        program.close()


def test_layers_of_the_encoder_keep_their_keys_in_one_place(model: edgeq.Model) -> None:
    """None is read once the next layer writes its own: of the real model that is 19 MiB, and not 27 times as many."""
    eyes = model._eyes
    assert eyes is not None
    tower, _ = eyes._programs()
    (group,) = tower.plan.groups
    assert len(eyes.images.tower.layers) == 3 and len(group.layers) == 1
    assert group.nbytes == 64 * 4 * (60 + 3 * 32)  # keys of 20 values, and values of 20 in rows of 32, f32


def test_quantized(path: Path, tmp_path: Path) -> None:
    convert(path.parent / "m", tmp_path / "q.eqf", "Q8_0")
    with edgeq.load(tmp_path / "q.eqf", threads=2) as model, edgeq.load(tmp_path / "q.eqf", threads=3) as other:
        own = [each._eyes.rows(each._eyes.look(picture("wide"))) for each in (model, other) if each._eyes]
        np.testing.assert_array_equal(*own)
        assert np.sqrt(np.mean((own[0] - GOLDEN["wide rows"]) ** 2)) <= 0.03 * GOLDEN["wide rows"].std()
        np.testing.assert_array_equal(logits(model, "wide"), logits(other, "wide"))
