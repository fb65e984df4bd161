"""The page to chat on, in a browser if there is one: what is asked, shown and typed."""

import json
import re

import pytest
from scripted import THOUGHTS, scripted_model
from serving import slow_model

SHOWN = "#log .assistant:last-child"


def ask(page, text, model=None):
    """Ask, and wait for the end of the answer."""
    if model:
        page.select_option("#model", model)
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_selector("#send:visible")


def settle(page, **fields):
    page.click("#set")
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.click("#set")


def test_a_conversation(served, watched):
    page = watched(served.url, viewport={"width": 390, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    settle(page, temperature="0", max_tokens="3")
    ask(page, "a", "counting")
    assert page.inner_text(f"{SHOWN} .text") == ";<=" and "cut at the limit" in page.inner_text("#log")
    assert re.search(r"\d+ of 64 tokens · .*first after \d+\.\d\d s", page.inner_text("#log"))
    page.reload()
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    assert page.inner_text(f"{SHOWN} .text") == ";<=" and page.input_value("#model") == "counting"
    assert page.input_value("#max_tokens") == "3", "they are kept, chats and settings"
    page.click(f"{SHOWN} >> text=Go on")
    page.wait_for_selector(f'{SHOWN} .text:has-text(";<=>?@")')
    assert page.locator("#log article").count() == 2

    settle(page, max_tokens="1500")
    page.select_option("#model", "slow")
    page.fill("#text", "b")
    page.press("#text", "Enter")
    page.wait_for_selector(f'{SHOWN} .text:has-text("cdef")')
    page.keyboard.press("Escape")
    page.wait_for_selector("#send:visible")
    assert "stopped" in page.inner_text(f"{SHOWN} .tools")


def test_versions(served, watched):
    """An edit or another answer begins a branch; what was said stays."""
    page = watched(served.url)
    settle(page, temperature="0", max_tokens="2")
    ask(page, "a", "counting")
    ask(page, "b")
    page.press("#text", "ArrowUp")
    assert page.input_value("#text") == "b" and page.is_visible("#editing")
    page.keyboard.press("Escape")
    assert page.input_value("#text") == "" and not page.is_visible("#editing")
    page.click("#log .user:first-child >> text=Edit")
    ask(page, "c")
    assert page.locator("#log article").count() == 2 and page.inner_text("#log .user .body") == "c"
    page.click(f"{SHOWN} >> text=Again")
    page.wait_for_selector(f'{SHOWN} .tools:has-text("2/2")')
    page.click("#log .user >> [aria-label='The version before']")
    page.wait_for_selector("#log article:nth-child(4)")
    assert page.inner_text("#log article:nth-child(3) .body") == "b", "the branch as it was left"
    page.click("#log .user:first-child >> [aria-label='The next version']")
    page.wait_for_selector(f'{SHOWN} .tools:has-text("2/2")')
    assert page.locator("#chats .chat").count() == 1
    page.reload()
    page.wait_for_selector(f'{SHOWN} .tools:has-text("2/2")')
    assert page.inner_text("#log .user .body") == "c"


CALL = 'Let us see.\n<tool_call>\n{"name": "clock", "arguments": {"zone": "<b>CET</b>"}}\n</tool_call>'
CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
KEPT = "async (id) => (await (await import('/chat_store.js')).openStore()).read(id)"
LATEST = (
    "async () => (await (await (await import('/chat_store.js')).openStore()).heads()).sort((a, b) => b.at - a.at)[0].id"
)


def test_tools_are_called_and_answered(watched, start):
    pytest.importorskip("llguidance", reason="pip install llguidance")
    served = start({"calls": lambda say: scripted_model(CALL)})
    page = watched(served.url)
    settle(page, tools="[{")
    ask(page, "How late is it?")
    assert "no JSON" in page.inner_text("#log .failed")
    settle(page, tools=json.dumps([{"type": "function", "function": CLOCK}]), temperature="0")
    page.click(f"{SHOWN} >> text=Again")
    page.wait_for_selector("#log .results")
    assert page.inner_text(f"{SHOWN} .text p") == "Let us see."
    assert page.inner_text("#log .call summary") == "Calls clock"
    assert not page.is_visible("#log .call span")
    page.click("#log .call summary")
    assert json.loads(page.inner_text("#log .call span")) == {"zone": "<b>CET</b>"}
    page.fill("#log .results textarea", "<img src=x> noon")
    page.click("#log .results button")
    page.wait_for_selector("#log .assistant:nth-child(4) .results")
    talk = page.evaluate(KEPT, page.evaluate(LATEST))["messages"]
    assert [message["role"] for message in talk] == ["user", "assistant", "assistant", "tool", "assistant"]
    assert talk[3]["id"] == talk[2]["calls"][0]["id"] and talk[3]["content"] == "<img src=x> noon"
    page.reload()
    page.wait_for_selector("#log .tool")
    page.click("#log .tool summary")
    assert page.inner_text("#log .tool span") == "<img src=x> noon"
    assert page.evaluate("document.querySelectorAll('#log img, #log b').length") == 0


def test_files_are_attached_with_their_size(served, watched):
    page = watched(served.url)
    page.select_option("#model", "slow")
    files = [("notes.txt", b"12345"), ("picture.png", b"\x89PNG\0"), ("long.txt", b"a" * 2001)]
    page.set_input_files("#files", [{"name": n, "mimeType": "text/plain", "buffer": b} for n, b in files])
    page.wait_for_selector("#attached .size:has-text('5 tokens of 2000')")
    page.wait_for_selector("#attached .failed:has-text('2001 tokens of 2000')")
    page.click("[aria-label='Remove long.txt']")
    assert page.inner_text("#attached .name") == "notes.txt" and "picture.png is no text" in page.inner_text("#state")
    settle(page, max_tokens="3")
    ask(page, "b")
    assert page.inner_text("#log .file summary") == "notes.txt" and not page.is_visible("#attached")
    page.click("#log .user >> text=Edit")
    assert page.inner_text("#attached .name") == "notes.txt" and page.input_value("#text") == "b"


def test_how_far_a_prompt_is(watched, start):
    served = start({"slow": lambda say: slow_model(pass_s=0.15, context=4000)})
    page = watched(served.url)
    page.fill("#text", "a" * 3000)
    page.evaluate(
        "window.said = []; new MutationObserver(() => said.push([document.getElementById('state').textContent, "
        "document.getElementById('far').value])).observe(document.getElementById('state'), {childList: true})"
    )
    page.press("#text", "Enter")
    page.wait_for_selector(f"{SHOWN} .text:has-text(';')")
    page.click("#stop")
    told = [
        (re.fullmatch(r"Reading the prompt: (\d+) of 30\d\d tokens", text), bar) for text, bar in page.evaluate("said")
    ]
    assert any(0 < int(found[1]) == bar < 3000 for found, bar in told if found)
    assert not page.is_visible("#far")


def test_thoughts_are_folded(watched, start):
    served = start({"thinks": lambda say: scripted_model("They *ask*.\n</think>\n\n**Warm.**", THOUGHTS)})
    page = watched(served.url)
    ask(page, "a")
    page.wait_for_selector(f"{SHOWN} strong")
    assert page.text_content(f"{SHOWN} details span") == "They *ask*."
    assert not page.is_visible(f"{SHOWN} details span")
    page.click(f"{SHOWN} summary")
    assert page.is_visible(f"{SHOWN} details span")


def test_an_answer_grows_block_by_block(watched, start):
    """What is finished is not made again: nodes stay those they were."""
    text = "# One\n\nTwo.\n\n" + "word " * 200 + "\n\nEnd."
    served = start({"writes": lambda say: scripted_model(text)})
    page = watched(served.url)
    page.evaluate(
        """window.made = {};
        const seen = ({ parentNode, nodeName }) => {
          if (parentNode?.className === "text") made[nodeName] = 1 + (made[nodeName] ?? 0);
        };
        new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(seen)))
          .observe(document.getElementById("log"), { childList: true, subtree: true });"""
    )
    ask(page, "a")
    page.wait_for_selector(f"{SHOWN} p:nth-of-type(3)")
    made = page.evaluate("made")
    assert made["P"] > made["H1"] + 4, "what grew was looked at while it did, what was finished was let be"


def test_what_is_cut_off_is_kept(served, watched):
    """By a server that goes away, and by a page that is left."""
    page = watched(served.url)
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "Half of"}, "finish_reason": None}]})
    cut = {"content_type": "text/event-stream", "body": f"data: {chunk}\n\ndata: {chunk[:20]}"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**cut))
    ask(page, "a")
    assert page.inner_text(f"{SHOWN} .text") == "Half of"
    assert page.inner_text(f"{SHOWN} .failed") == "The server went away."
    assert page.is_visible(f"{SHOWN} >> text=Go on")
    page.unroute("**/v1/chat/completions")

    page.click("#new")
    page.select_option("#model", "slow")
    page.fill("#text", "b")
    page.press("#text", "Enter")
    page.wait_for_selector(f'{SHOWN} .text:has-text("cdef")')
    page.reload()
    page.wait_for_selector(f"{SHOWN} .note:has-text('not finished: the page was left')")
    assert page.inner_text("#log .user .body") == "b"


def test_colours_and_keys(served, watched):
    page = watched(served.url, color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    page.click("#set")
    page.select_option("#theme", "light")
    assert page.evaluate(paper) == light
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert page.evaluate(paper) == light
    page.click("#set")
    page.select_option("#theme", "")
    assert page.evaluate(paper) == dark
    page.keyboard.press("Escape")
    assert not page.is_visible("#settings")
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.id") == "find"
