"""The page to chat on: what it is made of, and, in a browser if there is one, what it does."""

import json
import re
import shutil
from pathlib import Path

import pytest
from scripted import THOUGHTS, scripted_model
from serving import slow_model

import edgeq
from edgeq.serve.page_files import FILES

FOLDER = Path(edgeq.__file__).parent / "serve" / "page"
HOSTILE = (
    "# <img src=x onerror=alert(1)>\n<script>alert(2)</script>\n[x](javascript:alert(3)) [ok](https://example.com/)\n"
    "- one\n  - <b>two</b>\n\n```\n<i>code</i>\n```\n" + "`" * 9000 + "[" * 9000
)


@pytest.mark.parametrize("path", FILES)
def test_files_come_with_what_keeps_others_out(served, path):
    answer = served.http.get(path)
    name, kind = FILES[path]
    assert answer.status_code == 200 and answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_it_is_made_of_these_files_alone():
    assert {name for name, _ in FILES.values()} == {path.name for path in FOLDER.iterdir()}
    html, script = (FOLDER / "page.html").read_text(), (FOLDER / "page.js").read_text()
    assert {*re.findall(r'(?:src|href)="([^"]+)"', html)} == {path.removeprefix("/") for path in FILES} - {""}
    assert " style=" not in html and not re.search(r"\son\w+=", html), "the policy forbids these"
    for never in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert never not in script


def test_elements_that_the_script_wants_are_there():
    html, script = (FOLDER / "page.html").read_text(), (FOLDER / "page.js").read_text()
    wanted = {*re.findall(r'\$\("(\w+)"\)', script)} | {
        *re.findall(r'"(\w+)"', re.search(r"FIELDS = (.*);", script)[1])
    }
    assert wanted <= {*re.findall(r'id="(\w+)"', html)}


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_conversation(served, browser):
    page = browser.new_page(viewport={"width": 390, "height": 780})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.goto(served.url)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") == 390

    def ask(text, model):
        page.select_option("#model", model)
        page.fill("#text", text)
        page.press("#text", "Enter")

    page.click("#set")
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "3")
    page.click("#set")
    ask("a", "counting")
    page.wait_for_selector("#send:visible")
    assert page.inner_text("#log .assistant .body") == ";<=" and "cut at the limit" in page.inner_text("#log")
    page.reload()
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    assert page.inner_text("#log .assistant .body") == ";<=", "it is kept, and so are the settings"

    page.click("#set")
    page.fill("#max_tokens", "1500")
    page.click("#set")
    ask("b", "slow")
    page.wait_for_selector('#log article:nth-child(4) .body:has-text("cdef")')
    page.click("#stop")
    page.wait_for_selector("#send:visible")
    assert page.inner_text("#log .assistant:last-child .tools").endswith("stopped")

    page.click("#log .user:first-child >> text=Edit")
    assert page.input_value("#text") == "a" and page.inner_text("#log") == ""

    stored = "Object.keys(localStorage).find((key) => key.startsWith('edgeq.chat.'))"
    page.evaluate(
        f"(text) => {{ const key = {stored}; const chat = JSON.parse(localStorage[key]);"
        "chat.messages[1].content = text; localStorage[key] = JSON.stringify(chat); }",
        HOSTILE,
    )
    page.reload()
    page.wait_for_selector("#log .assistant h1")
    assert page.evaluate("document.querySelectorAll('#log img, #log script, #log b, #log i').length") == 0
    links = page.evaluate("JSON.stringify([...document.querySelectorAll('#log a')].map((link) => link.href))")
    assert json.loads(links) == ["https://example.com/"]
    assert page.inner_text("#log pre") == "<i>code</i>" and page.inner_text("#log li li") == "<b>two</b>"
    assert errors == []
    page.close()


CALL = 'Let us see.\n<tool_call>\n{"name": "clock", "arguments": {"zone": "<b>CET</b>"}}\n</tool_call>'
CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}


def test_tools_are_called_and_answered(browser, start):
    pytest.importorskip("llguidance", reason="pip install llguidance")
    served = start({"calls": lambda say: scripted_model(CALL)})
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#model option", state="attached")
    page.click("#set")
    page.fill("#tools", "[{")
    page.click("#set")
    page.fill("#text", "How late is it?")
    page.press("#text", "Enter")
    page.wait_for_selector("#log .failed")
    assert "no JSON" in page.inner_text("#log .failed")
    page.click("#set")
    page.fill("#tools", json.dumps([{"type": "function", "function": CLOCK}]))
    page.fill("#temperature", "0")
    page.click("#set")
    page.click("#log .assistant >> text=Again")
    page.wait_for_selector("#log .results")
    assert page.inner_text("#log .assistant .body p") == "Let us see."
    assert page.inner_text("#log .call summary") == "Calls clock"
    assert not page.is_visible("#log .call span")
    page.click("#log .call summary")
    assert json.loads(page.inner_text("#log .call span")) == {"zone": "<b>CET</b>"}
    page.fill("#log .results textarea", "<img src=x> noon")
    page.click("#log .results button")
    page.wait_for_selector("#log .assistant:nth-child(4) .results")
    kept = "Object.entries(localStorage).filter(([k]) => k.startsWith('edgeq.chat.')).map(([, v]) => JSON.parse(v))"
    talk = page.evaluate(f"{kept}.sort((a, b) => b.at - a.at)[0].messages")
    assert [message["role"] for message in talk] == ["user", "assistant", "tool", "assistant"]
    assert talk[2]["id"] == talk[1]["calls"][0]["id"] and talk[2]["content"] == "<img src=x> noon"
    page.reload()
    page.wait_for_selector("#log .tool")
    page.click("#log .tool summary")
    assert page.inner_text("#log .tool span") == "<img src=x> noon"
    assert page.evaluate("document.querySelectorAll('#log img, #log b').length") == 0
    page.close()


def test_files_are_attached_with_their_size(served, browser):
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.select_option("#model", "slow")
    files = [("notes.txt", b"12345"), ("picture.png", b"\x89PNG\0")]
    page.set_input_files("#files", [{"name": n, "mimeType": "text/plain", "buffer": b} for n, b in files])
    page.wait_for_selector("#attached .size:has-text('5 tokens of 2000')")
    assert page.inner_text("#attached .name") == "notes.txt" and "picture.png is no text" in page.inner_text("#state")
    page.click("#set")
    page.fill("#max_tokens", "3")
    page.click("#set")
    page.fill("#text", "b")
    page.press("#text", "Enter")
    page.wait_for_selector("#send:visible")
    assert page.inner_text("#log .file summary") == "notes.txt" and not page.is_visible("#attached")
    page.click("#log .user >> text=Edit")
    assert page.inner_text("#attached .name") == "notes.txt" and page.input_value("#text") == "b"
    page.close()


def test_how_far_a_prompt_is(browser, start):
    served = start({"slow": lambda say: slow_model(pass_s=0.15, context=4000)})
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#model option", state="attached")
    page.fill("#text", "a" * 3000)
    page.evaluate(
        "window.said = []; new MutationObserver(() => said.push(document.getElementById('state').textContent))"
        ".observe(document.getElementById('state'), {childList: true})"
    )
    page.press("#text", "Enter")
    page.wait_for_selector("#log .assistant .body:has-text(';')")
    page.click("#stop")
    far = [re.fullmatch(r"Reading the prompt: (\d+) of 30\d\d tokens", text) for text in page.evaluate("said")]
    assert any(0 < int(found[1]) < 3000 for found in far if found)
    page.close()


def test_thoughts_are_folded(browser, start):
    served = start({"thinks": lambda say: scripted_model("They *ask*.\n</think>\n\n**Warm.**", THOUGHTS)})
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#model option", state="attached")
    page.fill("#text", "a")
    page.press("#text", "Enter")
    page.wait_for_selector("#log .assistant strong")
    page.wait_for_selector("#send:visible")
    assert page.text_content("#log .assistant details span") == "They *ask*."
    assert not page.is_visible("#log .assistant details span")
    page.click("#log .assistant summary")
    assert page.is_visible("#log .assistant details span")
    page.close()
