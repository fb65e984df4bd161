"""Chats about images, against transformers: prompts, logits, what follows, and that no image is taken for another."""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seeing_model
from PIL import Image
from seeing_model import IMAGE, QUESTION, SIZES, picture

import edgeq
from edgeq.errors import ContextError, UsageError
from edgeq.quantize.pipeline import convert
from edgeq.runtime.program import Part

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "images.npz")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing")
    seeing_model.write(folder / "m")
    convert(folder / "m", folder / "m.eqf", "F32")
    convert(folder / "m", folder / "text.eqf", "F32", vision=False)
    seeing_model.write(folder / "plain", do_image_splitting=False)
    convert(folder / "plain", folder / "plain.eqf", "F32")
    return folder


@pytest.fixture(scope="module")
def model(files: Path) -> Iterator[edgeq.Model]:
    with edgeq.load(files / "m.eqf", threads=2) as model:
        yield model


def talk(*images: Any, question: str = QUESTION) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def logits(model: edgeq.Model, name: str, *sizes: int) -> np.ndarray:
    """Of the last eight tokens of the chat about a picture, evaluated in pieces of these sizes."""
    sight, program = model.sight([picture(name)]), model.session.program
    assert sight is not None
    mixed = sight.mixed(model.chat_tokens(talk(picture(name))))
    keys, sequence = np.array(mixed.keys), program.sequence()
    ends = [*np.cumsum(sizes), len(keys)]
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        part = Part(sequence, keys[start:end], range(end - start), given=mixed.given)
        found.append(program.step([part])[0])
    return np.concatenate(found)[-8:]


@pytest.mark.parametrize("name", SIZES)
def test_a_chat_is_that_of_transformers(model: edgeq.Model, name: str) -> None:
    assert model.chat_tokens(talk(picture(name))) == GOLDEN[f"{name} prompt"].tolist()
    assert np.abs(logits(model, name) - GOLDEN[f"{name} logits"]).max() <= 1e-3
    answer = model.chat(talk(picture(name)), 12, temperature=0)
    assert answer.text
    assert answer.tokens == GOLDEN[f"{name} greedy"].tolist()


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_without_tiles(files: Path, name: str) -> None:
    with edgeq.load(files / "plain.eqf", threads=2) as model:
        assert model.chat_tokens(talk(picture(name))) == GOLDEN[f"plain {name} prompt"].tolist()
        assert np.abs(logits(model, name) - GOLDEN[f"plain {name} logits"]).max() <= 1e-3
        answer = model.chat(talk(picture(name)), 12, temperature=0)
        assert answer.text
        assert answer.tokens == GOLDEN[f"plain {name} greedy"].tolist()


def test_split_anywhere_to_the_same_bits(model: edgeq.Model) -> None:
    whole = logits(model, "wide")
    for sizes in ((1,), (30,), (33, 1, 1), (20, 40)):
        np.testing.assert_array_equal(logits(model, "wide", *sizes), whole)


def test_no_image_is_taken_for_another(files: Path) -> None:
    """Two prompts of the same tokens: nothing of the one is used for the other, all of it for the same."""
    other = picture("wide")[::-1].copy()
    with edgeq.load(files / "m.eqf", threads=2) as fresh:
        expected = list(fresh.chat(talk(other), 8, temperature=0))
    with edgeq.load(files / "m.eqf", threads=2) as model:
        text = model.chat(talk(picture("wide")), 8, temperature=0).text
        again = model.chat(talk(picture("wide")), 8, temperature=0)
        assert again.text == text
        assert again.timings.cached_tokens == again.prompt_tokens - 1
        second = model.chat(talk(other), 8, temperature=0)
        assert list(second) == expected
        at = model.chat_tokens(talk(other)).index(IMAGE)
        assert second.timings.cached_tokens <= at
        assert model.chat(talk(picture("wide")), 8, temperature=0).text == text != second.text
        plain = model.generate(model.chat_tokens(talk(other)), 1, temperature=0)  # the same tokens, without an image
        assert plain.text is not None
        assert plain.timings.cached_tokens <= at


def test_a_conversation_goes_on(model: edgeq.Model) -> None:
    first = talk(picture("tall"))
    answer = model.chat(first, 5, temperature=0)
    further = [*first, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "and now?"}]
    second = model.chat(further, 5, temperature=0)
    assert second.text
    assert second.timings.cached_tokens >= len(model.chat_tokens(first)) - 1


def test_several_images_and_forms(model: edgeq.Model, tmp_path: Path) -> None:
    one, other = picture("wide"), picture("square")
    (tmp_path / "a.png").write_bytes(png(one))
    url = "data:image/png;base64," + base64.b64encode(png(other)).decode()
    expected = model.chat(talk(one, other), 6, temperature=0).text
    assert model.chat(talk(tmp_path / "a.png", Image.fromarray(other)), 6, temperature=0).text == expected
    mixed = talk(png(one))
    mixed[0]["content"].insert(1, {"type": "image_url", "image_url": {"url": url}})
    assert model.chat(mixed, 6, temperature=0).text == expected
    assert model.chat(talk(other, one), 6, temperature=0).text != expected
    together = model.batch([talk(other), talk(one, other)], 6, temperature=0)
    assert [answer.text for answer in together][1] == expected


def test_what_seeing_takes_is_part_of_the_first_token(model: edgeq.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes = model._eyes
    assert eyes is not None
    seen = eyes.rows
    monkeypatch.setattr(eyes, "rows", lambda look: time.sleep(0.2) or seen(look))
    answer = model.chat(talk(picture("wide")), 1, temperature=0)
    assert answer.text is not None
    assert answer.timings.first_token_s >= 0.2


def test_penalties_know_tokens_alone(model: edgeq.Model) -> None:
    """Numbers of an image's rows are none of the vocabulary's."""
    options: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.5}
    assert model.chat(talk(picture("wide")), 8, **options).text


def test_what_cannot_be_is_refused(files: Path, model: edgeq.Model) -> None:
    with edgeq.load(files / "text.eqf", threads=2) as blind:
        assert not blind.sees
        with pytest.raises(UsageError, match=r"text\.eqf: reads text alone"):
            blind.chat(talk(picture("wide")), 1)
        assert blind.chat(talk(), 4, temperature=0).text == model.chat(talk(), 4, temperature=0).text
    assert model.sees
    silent = edgeq.load(
        files / "m.eqf", chat_template="{% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}"
    )
    with silent, pytest.raises(UsageError, match="has 1 images, and its prompt 0 places for them"):
        silent.chat(talk(picture("wide")), 1)
    with pytest.raises(UsageError, match="nothing is fetched"):
        model.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}], 1)
    with pytest.raises(UsageError, match="without `image`"):
        model.chat([{"role": "user", "content": [{"type": "image"}]}], 1)
    with pytest.raises(ContextError, match="the images of the conversation take more"):
        model.chat(talk(*[picture("square")] * 13), 1)
    model.chat(talk(picture("wide")), 1, temperature=0).text  # noqa: B018
    with pytest.raises(UsageError, match="cannot be saved"):
        model.save_text(files / "a.eqp")
    other = edgeq.load(files / "m.eqf", chat_template="{{ messages[0]['content'] }}")
    with other, pytest.raises(UsageError, match="no text"):
        other.chat(talk(picture("wide")), 1)


def test_a_name_of_the_images_token_is_text(model: edgeq.Model) -> None:
    """Where someone says it, in any message, with images and without: the template's alone are places of images."""
    said = f"is <image> {QUESTION}<image>a tag?"
    for images in ([], [picture("wide")]):
        for role in ("system", "assistant", "user"):
            messages = talk(*images, question=said if role == "user" else QUESTION)
            if role != "user":
                messages.insert(0, {"role": role, "content": said})
            tokens = model.chat_tokens(messages)
            assert said in model.tokenizer.decode(tokens, special=True)
            plain = model.chat_tokens(talk(*images))
            assert tokens.count(IMAGE) == plain.count(IMAGE)
            assert model.chat(messages, 2, temperature=0).text is not None
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a": "<image>"}'}}
    said_by_tool = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "<image>"},
    ]
    tool = {"type": "function", "function": {"name": "f", "description": "<image>", "parameters": {}}}
    assert IMAGE not in model.chat_tokens(said_by_tool, tools=[tool])


def test_a_plain_text_reaches_a_template_of_parts(model: edgeq.Model) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    assert model.chat_tokens([{"role": "user", "content": QUESTION}]) == model.chat_tokens(parts)
