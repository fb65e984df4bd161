"""Images in requests."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import seeing_gemma
import seeing_gemma4
import seeing_model
from PIL import Image
from seeing_model import QUESTION, picture
from serving import Served, serving, wait_until

from edgeq import load
from edgeq.quantize.pipeline import convert


def encoded(name: str) -> str:
    file = io.BytesIO()
    Image.fromarray(picture(name)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def seeing(folder: Path) -> Iterator[Served]:
    """A server of two models: one sees, the other reads text alone."""
    seeing_model.write(folder / "m")
    convert(folder / "m", folder / "m.eqf", "F32")
    convert(folder / "m", folder / "text.eqf", "F32", vision=False)
    models = {name: lambda say, name=name: load(folder / f"{name}.eqf", threads=2) for name in ("m", "text")}
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        yield served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with seeing(tmp_path_factory.mktemp("images")) as served:
        yield served


@pytest.fixture(scope="module")
def expected(served: Served) -> str:
    parts = [{"type": "image", "image": picture("wide")}, {"type": "text", "text": QUESTION}]
    engine = served.roster.entries["m"].engine
    return engine.model.chat([{"role": "user", "content": parts}], 6, temperature=0).text


def parts(url: object, kind: str = "image_url") -> list[dict]:
    return [{"role": "user", "content": [{"type": kind, kind: url}, {"type": "text", "text": QUESTION}]}]


def chat(served: Served, messages: list[dict], model: str = "m"):
    return served.post("/v1/chat/completions", model=model, messages=messages, max_tokens=6, temperature=0)


@pytest.mark.parametrize("form", ["object", "text"])
def test_a_chat_about_an_image(served, expected, form):
    url = f"data:image/png;base64,{encoded('wide')}"
    answer = chat(served, parts({"url": url, "detail": "low"} if form == "object" else url)).json()
    assert answer["choices"][0]["message"]["content"] == expected
    assert answer["usage"]["prompt_tokens"] == 72
    other = chat(served, parts(f"data:;base64,{encoded('tall')}")).json()
    assert other["choices"][0]["message"]["content"] != expected


def test_ollama(served, expected):
    options = {"temperature": 0, "num_predict": 6}
    message = {"role": "user", "content": QUESTION, "images": [encoded("wide")]}
    answer = served.post("/api/chat", model="m", messages=[message], options=options, stream=False)
    assert answer.json()["message"]["content"] == expected
    broken = base64.encodebytes(base64.b64decode(encoded("wide"))).decode()  # as `base64 FILE` writes it
    fields = {"model": "m", "prompt": QUESTION, "images": [broken], "options": options, "stream": False}
    assert served.post("/api/generate", **fields).json()["response"] == expected
    raw = served.post("/api/generate", **fields, raw=True)
    assert (raw.status_code, "images need a conversation" in raw.text) == (400, True)
    assert "vision" in served.post("/api/show", model="m").json()["capabilities"]
    bad = served.post("/api/chat", model="m", messages=[{**message, "images": [7]}], stream=False)
    assert (bad.status_code, "images must be a list" in bad.text) == (400, True)


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        (parts({"url": "http://localhost/a.png"}), "nothing is fetched"),
        (parts({"url": "file:///etc/passwd"}), "nothing is fetched"),
        (parts({"url": "/etc/passwd"}), "nothing is fetched"),
        (parts({"url": "data:image/png,abc"}), "not in base64"),
        (parts({"url": "data:image/png;base64,a*"}), "no base64"),
        (parts({"url": "data:image/png;base64,aGVsbG8="}), "no image that can be read"),
        (parts({}), "without a URL"),
        (parts("/etc/passwd", "image"), "no text (image)"),
        ([{"role": "user", "content": [{"type": "image"}]}], "no text (image)"),
        ([*parts("hello", "text"), *parts("/etc/passwd", "image")], "message 2 has a part that is no text (image)"),
        ([*parts("hello", "text"), *parts("a.mp4", "video")], "message 2 has a part that is no text (video)"),
    ],
)
def test_what_is_refused(served, messages, what):
    answer = chat(served, messages)
    assert answer.status_code == 400
    assert what in answer.json()["error"]["message"]


def test_a_model_that_reads_text_alone(served):
    answer = chat(served, parts({"url": f"data:image/png;base64,{encoded('wide')}"}), "text")
    assert answer.status_code == 400
    assert "the model text.eqf reads text alone" in answer.json()["error"]["message"]
    for field, content, path, count in (
        ("messages", told(), "/v1/messages", "/v1/messages/count_tokens"),
        ("input", given(), "/v1/responses", "/v1/responses/input_tokens"),
    ):
        for asked in (path, count):
            answer = served.post(asked, model="text", max_tokens=6, **{field: content})
            assert answer.status_code == 400
            said = answer.json()["error"]["message"]
            assert said.startswith(f"{field} has images") and "the model text.eqf reads text alone" in said


def block(name: str = "wide", **source: object) -> dict:
    source = source or {"type": "base64", "media_type": "image/png", "data": encoded(name)}
    return {"type": "image", "source": source}


def told(*blocks: dict) -> list[dict]:
    """A message of Anthropic's."""
    return [{"role": "user", "content": [*(blocks or [block()]), {"type": "text", "text": QUESTION}]}]


def given(**image: object) -> list[dict]:
    """An item of OpenAI's Responses."""
    image = image or {"image_url": f"data:image/png;base64,{encoded('wide')}", "detail": "auto"}
    content = [{"type": "input_image", **image}, {"type": "input_text", "text": QUESTION}]
    return [{"role": "user", "content": content}]


def message(served: Served, messages: list[dict], path: str = "/v1/messages", **more: object):
    return served.post(path, model="m", messages=messages, max_tokens=6, temperature=0, **more)


def test_anthropics_messages(served, expected):
    answer = message(served, told()).json()
    assert answer["content"] == [{"type": "text", "text": expected}]
    assert answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"] == 72
    assert message(served, told(), "/v1/messages/count_tokens").json() == {"input_tokens": 72}
    assert message(served, told(block("tall"))).json()["content"] != answer["content"]
    both = message(served, told(block("tall"), block()), "/v1/messages/count_tokens").json()["input_tokens"]
    assert both > 100, "rows of both"


def test_an_image_that_a_tool_gives(served):
    """In Anthropic's API and in the Responses it is the same prompt, in which the image is seen where it stands."""
    use = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
    counts = []
    for name in ("wide", "tall"):
        result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "see"}, block(name)]}
        talk = [{"role": "user", "content": "b"}, {"role": "assistant", "content": [use]}]
        talk += [{"role": "user", "content": [result]}]
        counts.append(message(served, talk, "/v1/messages/count_tokens").json()["input_tokens"])
        url = f"data:image/png;base64,{encoded(name)}"
        output = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": url}]
        items = [{"role": "user", "content": "b"}, {"type": "function_call", "call_id": "a", "name": "look"}]
        items += [{"type": "function_call_output", "call_id": "a", "output": output}]
        assert served.post("/v1/responses/input_tokens", model="m", input=items).json()["input_tokens"] == counts[-1]
    talk[-1]["content"][0]["content"].pop()
    alone = message(served, talk, "/v1/messages/count_tokens").json()["input_tokens"]
    assert alone + 20 < min(counts) and counts[0] != counts[1]
    assert message(served, [*talk[:2], {**talk[2], "content": [{**result, "content": [7]}]}]).status_code == 400


def test_responses(served, expected):
    fields = {"model": "m", "max_output_tokens": 6, "temperature": 0}
    first = served.post("/v1/responses", **fields, input=given()).json()
    assert first["output"][0]["content"][0]["text"] == expected
    assert first["usage"]["input_tokens"] == 72
    assert served.post("/v1/responses/input_tokens", model="m", input=given()).json()["input_tokens"] == 72
    items = served.http.get(f"/v1/responses/{first['id']}/input_items").json()["data"]
    assert items == [{"type": "message", **given()[0]}]
    after = {"model": "m", "previous_response_id": first["id"], "input": "b"}
    more = served.post("/v1/responses/input_tokens", **after).json()["input_tokens"]
    assert more > 72 + 6, "the image is still there"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ({"type": "url", "url": "http://localhost/a.png"}, "source is of type 'url'"),
        ({"type": "file", "file_id": "file_1"}, "source is of type 'file'"),
        ({"type": "base64", "data": "aGk="}, "needs a media_type"),
        ({"type": "base64", "media_type": "image/png,", "data": "aGk="}, "needs a media_type"),
        ({"type": "base64", "media_type": "image/png", "data": 7}, "data in base64"),
        ({"type": "base64", "media_type": "image/png", "data": "a*"}, "image 1: is no base64"),
        ({"type": "base64", "media_type": "image/png", "data": "aGk="}, "no image that can be read"),
    ],
)
def test_what_is_refused_of_anthropics(served, source, what):
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        answer = message(served, told(block(**source)), path)
        assert answer.status_code == 400 and answer.json()["type"] == "error"
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert what in answer.json()["error"]["message"]


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_images_of_others_are_refused(served, role):
    talk = [*told(), {"role": "assistant", "content": [block()]}]
    fields = {"messages": talk} if role == "assistant" else {"messages": told(), "system": [block()]}
    answer = served.post("/v1/messages", model="m", max_tokens=6, **fields)
    assert (answer.status_code, "type 'image'" in answer.json()["error"]["message"]) == (400, True)
    item = {**given()[0], "role": role}
    answer = served.post("/v1/responses", model="m", input=[item, *given()])
    assert (answer.status_code, "type 'input_image'" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        ({"file_id": "file_1"}, "file_id"),
        ({"image_url": None}, "without a URL"),
        ({"image_url": "https://localhost/a.png"}, "nothing is fetched"),
        ({"image_url": "data:image/png;base64,aGk="}, "no image that can be read"),
    ],
)
def test_what_is_refused_of_responses(served, image, what):
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        answer = served.post(path, model="m", input=given(**image))
        assert (answer.status_code, what in answer.json()["error"]["message"]) == (400, True)


def test_no_prompt_is_told_without_its_images(served):
    answer = served.post("/apply-template", model="m", messages=parts(f"data:;base64,{encoded('wide')}"))
    assert (answer.status_code, "image_url" in answer.text) == (400, True)


@pytest.mark.parametrize("write", [seeing_gemma.write, partial(seeing_gemma4.write, which="large")], ids=["3", "4"])
def test_gemma(tmp_path, write):
    """Several at once, whose images no pass splits: each is told what it is told alone."""
    convert(write(tmp_path / "m"), tmp_path / "g.eqf", "F32")
    names = [*seeing_model.SIZES]
    with serving({"g": lambda say: load(tmp_path / "g.eqf", threads=2)}) as served:
        wait_until(lambda: served.roster.ready)
        model, question = served.roster.entries["g"].engine.model, {"type": "text", "text": QUESTION}
        talks = [[{"type": "image", "image": picture(name)}, question] for name in names]
        expected = [model.chat([{"role": "user", "content": talk}], 6, temperature=0).text for talk in talks]
        with ThreadPoolExecutor(len(names)) as pool:
            asked = pool.map(lambda name: chat(served, parts(f"data:;base64,{encoded(name)}"), "g").json(), names)
            assert [answer["choices"][0]["message"]["content"] for answer in asked] == expected
    assert len({*expected}) > 1
