"""Images in requests."""

import base64
import io
from collections.abc import Iterator

import pytest
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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("images")
    seeing_model.write(folder / "m")
    convert(folder / "m", folder / "m.eqf", "F32")
    convert(folder / "m", folder / "text.eqf", "F32", vision=False)
    models = {name: lambda say, name=name: load(folder / f"{name}.eqf", threads=2) for name in ("m", "text")}
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
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
    fields = {"model": "m", "prompt": QUESTION, "images": [encoded("wide")], "options": options, "stream": False}
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
    ],
)
def test_what_is_refused(served, messages, what):
    answer = chat(served, messages)
    assert answer.status_code == 400
    assert what in answer.json()["error"]["message"]


def test_a_model_that_reads_text_alone(served):
    answer = chat(served, parts({"url": f"data:image/png;base64,{encoded('wide')}"}), "text")
    assert answer.status_code == 400
    assert "reads text alone" in answer.json()["error"]["message"]
