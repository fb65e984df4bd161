"""Images on the page: chosen, pasted and dropped, shown, kept with the chat, and seen by a model that sees."""

from collections.abc import Iterator

import pytest
from seeing_model import QUESTION
from serving import Served
from test_image_requests import encoded, seeing
from test_page import KEPT, LATEST, ask, settle
from test_page_chats import take

URL = "data:image/png;base64,"
GIVEN = """([name, data, type, how]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const way = { bubbles: true, cancelable: true, clipboardData: transfer, dataTransfer: transfer };
  const event = how === "paste" ? new ClipboardEvent("paste", way) : new DragEvent("drop", way);
  document.getElementById("text").dispatchEvent(event);
}"""
DRAWN = "(images) => images.every((image) => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with seeing(tmp_path_factory.mktemp("images")) as served:
        assert served.post("/models/load", model="text").status_code == 200
        yield served


def give(page, name: str, how: str = "paste", kind: str = "image/png", data: str | None = None) -> None:
    page.evaluate(GIVEN, [f"{name}.png", encoded(name) if data is None else data, kind, how])


def asked(page) -> list[list[dict]]:
    """The messages of each request that the page will have sent."""
    found: list[list[dict]] = []
    page.on(
        "request",
        lambda request: request.url.endswith("completions") and found.append(request.post_data_json["messages"]),
    )
    return found


def test_a_chat_about_images(sees, watched):
    page = watched(sees.url)
    requests = asked(page)
    page.select_option("#model", "m")
    assert page.get_attribute("#attach", "title") == "Attach text files or images"
    settle(page, temperature="0", max_tokens="6")
    bytes_of = page.evaluate("(data) => [...atob(data)].map((one) => one.charCodeAt(0))", encoded("wide"))
    page.set_input_files("#files", {"name": "wide.png", "mimeType": "image/png", "buffer": bytes(bytes_of)})
    page.wait_for_selector("#attached .name:has-text('wide.png')")
    assert page.eval_on_selector_all("#attached img", DRAWN)
    ask(page, QUESTION)
    image = {"type": "image_url", "image_url": {"url": URL + encoded("wide")}}
    assert requests == [[{"role": "user", "content": [image, {"type": "text", "text": QUESTION}]}]]
    sent = {"model": "m", "messages": requests[0], "max_tokens": 6, "temperature": 0}
    expected = sees.post("/v1/chat/completions", **sent).json()["choices"][0]["message"]["content"]
    assert page.evaluate(KEPT, page.evaluate(LATEST))["messages"][1]["content"] == expected
    assert not page.is_visible("#attached")

    give(page, "tall", "paste")
    page.wait_for_selector("#attached img")
    give(page, "square", "drop")
    page.wait_for_selector("#attached > div:nth-child(2) img")
    page.click("[aria-label='Remove tall.png']")
    ask(page, "")
    assert requests[1][0] == requests[0][0], "what was shown before goes along"
    assert [part["image_url"]["url"] for part in requests[1][2]["content"]] == [URL + encoded("square")]

    page.reload()
    page.wait_for_selector("#log article:nth-child(4)")
    assert page.locator("#log .user img").count() == 2 and page.eval_on_selector_all("#log img", DRAWN)
    assert page.get_attribute("#log .user img", "alt") == "wide.png"
    page.click("#log .user:first-child >> text=Edit")
    assert page.inner_text("#attached .name") == "wide.png"
    ask(page, QUESTION)
    assert requests[2] == requests[0]

    page.fill("#find", "square.png")
    page.wait_for_selector("#chats small:has-text('square.png')")
    with page.expect_download() as download:
        page.click("#export")
    content = download.value.path().read_bytes()
    other = watched(sees.url)
    assert take(other, content) == "1 chats imported"
    other.click("#chats .open")
    other.wait_for_selector("#log .user img")
    assert other.eval_on_selector_all("#log img", DRAWN)


def test_a_model_that_sees_none(sees, watched):
    page = watched(sees.url)
    page.select_option("#model", "m")
    give(page, "wide")
    page.wait_for_selector("#attached img")
    page.select_option("#model", "text")
    assert page.inner_text("#attached .failed") == "this model sees no images"
    assert page.get_attribute("#attach", "aria-label") == "Attach text files (this model sees no images)"
    page.click("[aria-label='Remove wide.png']")
    give(page, "tall", "drop")
    page.wait_for_selector("#state:has-text('tall.png is an image, and text sees none, and was not attached.')")
    assert not page.is_visible("#attached")


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [("image/png", "aGVsbG8=", "is no image that this browser can read"), ("image/svg+xml", "AAA=", "is no text")],
)
def test_what_is_no_image(sees, watched, kind, data, why):
    page = watched(sees.url)
    page.select_option("#model", "m")
    give(page, "wide", "drop", kind, data)
    page.wait_for_selector(f"#state:has-text('wide.png {why}')")
    assert not page.is_visible("#attached")


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", "a.png"]
)
def test_imported_images_lie_in_the_chat(sees, watched, url):
    """One that would be fetched, or is of a kind that is more than pixels, is none."""
    page = watched(sees.url)
    message = {"role": "user", "content": "a", "images": [{"name": "a", "url": url}]}
    assert take(page, [{"id": "x", "at": 5, "messages": [message]}]) == "0 chats imported, 1 could not be read"


def test_nothing_else_is_drawn(sees):
    policy = sees.http.get("/").headers["content-security-policy"].split("; ")
    assert [part for part in policy if part.startswith("img-src")] == ["img-src 'self' data:"]
    models = {one["id"]: one for one in sees.http.get("/v1/models").json()["data"]}
    assert models["m"]["architecture"]["input_modalities"] == ["text", "image"]
    assert models["text"]["architecture"]["input_modalities"] == ["text"]
