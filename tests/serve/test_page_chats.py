"""Chats that the page keeps in the browser: IndexedDB, search, export and import, and what an earlier page left."""

import json

import pytest
from serving import wait_until
from test_page import KEPT, ask, settle

OLD = {
    "id": "old",
    "title": "Of apples",
    "at": 5,
    "messages": [
        {"role": "user", "content": "apples"},
        {"role": "assistant", "content": "are **red**", "note": "done"},
    ],
}
LEAVE = f"""if (!sessionStorage.left) {{
  sessionStorage.left = "yes";
  localStorage.setItem("edgeq.chat.old", JSON.stringify({json.dumps(OLD)}));
  localStorage.setItem("edgeq.chat.cut", "{{");
}}"""
REFUSE = "Object.defineProperty(window, 'indexedDB', { get() { throw new DOMException('no', 'SecurityError'); } });"
REFUSE_ALL = (
    REFUSE
    + "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
)


def titles(page) -> list[str]:
    return page.locator("#chats .open > span").all_inner_texts()


def chats(page, count: int) -> None:
    """Wait until as many are listed. (The policy lets no `wait_for_function` through.)"""
    wait_until(lambda: page.locator("#chats .chat").count() == count)


def take(page, chats, name="chats.json"):
    content = chats if isinstance(chats, bytes) else json.dumps(chats).encode()
    page.evaluate("document.getElementById('state').textContent = ''")
    page.set_input_files("#file", {"name": name, "mimeType": "application/json", "buffer": content})
    page.wait_for_selector("#state:not(:empty)")
    return page.inner_text("#state")


def test_what_an_earlier_page_left_is_moved_once(served, watched):
    page = watched(served.url, LEAVE)
    page.wait_for_selector("#log strong")
    assert titles(page) == ["Of apples"] and not page.is_visible("#lost")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('edgeq.chat.'))") == [
        "edgeq.chat.cut"
    ]
    page.reload()
    page.wait_for_selector("#log strong")
    assert titles(page) == ["Of apples"]
    settle(page, max_tokens="2")
    ask(page, "pears", "counting")
    assert page.locator("#log article").count() == 4, "it goes on"


@pytest.mark.parametrize("refuse", [REFUSE, REFUSE_ALL])
def test_where_nothing_is_kept_it_says_so(served, watched, refuse):
    page = watched(served.url, LEAVE + refuse if refuse == REFUSE else refuse)
    assert "Chats are lost when it is closed" in page.inner_text("#lost")
    settle(page, max_tokens="2")
    page.click("#new")
    ask(page, "plums", "counting")
    if refuse == REFUSE:
        assert page.evaluate("localStorage.getItem('edgeq.chat.old')"), "what is there stays there"
    page.click("#new")
    ask(page, "grapes")
    chats(page, 3 if refuse == REFUSE else 2)
    assert titles(page)[0] == "grapes"
    page.click("#chats >> text=plums")
    page.wait_for_selector("#log .user:has-text('plums')")
    with page.expect_download() as download:
        page.click("#export")
    assert {chat["title"] for chat in json.loads(download.value.path().read_bytes())} >= {"plums", "grapes"}


def test_search_looks_at_all_that_was_said(served, watched):
    page = watched(served.url)
    said = {
        "role": "assistant",
        "content": "",
        "thought": "a *Quince*?",
        "calls": [{"id": "1", "name": "buy", "arguments": '{"fruit": "fig"}'}],
    }
    asked = {"role": "user", "content": "so?", "files": [{"name": "list.txt", "text": "one\nmedlar\n"}]}
    talks = [
        OLD,
        {"id": "b", "at": 6, "messages": [asked, said]},
        {"id": "c", "at": 7, "title": "Empty", "messages": []},
    ]
    assert take(page, talks) == "3 chats imported"
    assert titles(page) == ["Empty", "so?", "Of apples"], "the latest first"
    for text, found in (
        ("QUINCE", "so?"),
        ("fig", "so?"),
        ("medlar", "so?"),
        ("of app", "Of apples"),
        ("red", "Of apples"),
    ):
        page.fill("#find", text)
        wait_until(lambda found=found: titles(page) == [found])
    assert page.inner_text("#chats small") == "are **red**"
    page.fill("#find", "durian")
    page.wait_for_selector("#chats >> text=No chat has this.")
    page.fill("#find", "")
    chats(page, 3)


def test_what_is_exported_is_imported(served, watched):
    page = watched(served.url)
    settle(page, max_tokens="2")
    ask(page, "a", "counting")
    page.click("#log .assistant >> text=Again")
    page.wait_for_selector('#log .assistant .tools:has-text("2/2")')
    assert take(page, [OLD]) == "1 chats imported"
    with page.expect_download() as download:
        page.click("#export")
    content = download.value.path().read_bytes()
    first, second = json.loads(content)
    assert (first["title"], second["title"], len(first["messages"])) == ("a", "Of apples", 3)
    assert take(page, content) == "0 chats imported, 2 were here already"
    other = watched(served.url)
    assert take(other, content) == "2 chats imported"
    other.click("#chats .open >> text=a")
    other.wait_for_selector('#log .assistant .tools:has-text("2/2")')
    with other.expect_download() as again:
        other.click("#export")
    assert again.value.path().read_bytes() == content


def test_what_is_no_chat_is_left_out(served, watched):
    page = watched(served.url)
    circle = {"id": "x", "messages": [{"role": "user", "content": "a", "parent": 0}]}
    beyond = {"id": "y", "leaf": 3, "messages": [{"role": "user", "content": "a"}]}
    other = {"id": "z", "messages": [{"role": "system", "content": "a"}]}
    assert take(page, [circle, beyond, other, None, 1, OLD]) == "1 chats imported, 5 could not be read"
    for content in (b"{", b"{}", b"\xff"):
        assert take(page, content, "odd.json") == "odd.json holds no chats."


def test_large_chats_have_room(served, watched, tmp_path):
    """More than localStorage holds."""
    page = watched(served.url)
    file = {"name": "f", "text": "a text " * 800_000}
    large = {"id": "l", "title": "Large", "at": 9, "messages": [{"role": "user", "content": "?", "files": [file]}]}
    (tmp_path / "large.json").write_text(json.dumps([large]))
    page.set_input_files("#file", tmp_path / "large.json")
    page.wait_for_selector("#state:has-text('1 chats imported')")
    page.reload()
    page.click("#log .file summary")
    assert page.inner_text("#log .file span").endswith("… and 5550000 characters more")
    length = f"async () => (await ({KEPT})('l')).messages[0].files[0].text.length"
    assert page.evaluate(length) == len(file["text"])


def test_names_and_deletion(served, watched):
    page = watched(served.url)
    take(page, [OLD, {**OLD, "id": "b", "title": "Of pears", "at": 9}])
    page.evaluate("window.prompt = () => ' Of plums '; window.confirm = () => true")
    page.click("#chats .open >> text=Of pears")
    page.wait_for_selector("#chats [aria-current] >> text=Of pears")
    page.click("[aria-label='Rename Of pears']")
    page.wait_for_selector("#chats [aria-current] >> text=Of plums")
    page.reload()
    page.wait_for_selector("#chats [aria-current] >> text=Of plums")
    page.evaluate("window.confirm = () => true")
    page.click("[aria-label='Delete Of plums']")
    page.wait_for_selector("#chats [aria-current] >> text=Of apples")
    assert titles(page) == ["Of apples"]
    page.click("[aria-label='Delete Of apples']")
    chats(page, 0)
    assert page.inner_text("#log") == ""


def test_an_answer_ends_with_its_chat(served, watched):
    """Leaving a chat stops its answer, and deleting it does not bring it back."""
    page = watched(served.url)
    take(page, [OLD])

    def begin():
        page.click("#new")
        page.select_option("#model", "slow")
        page.fill("#text", "b")
        page.press("#text", "Enter")
        page.wait_for_selector('#log .assistant .text:has-text("cdef")')

    begin()
    page.click("#chats .open >> text=Of apples")
    page.wait_for_selector("#log .assistant:last-child >> text=Again")
    assert page.is_visible("#send") and titles(page) == ["b", "Of apples"]
    page.click("#chats .open >> text=b")
    page.wait_for_selector("#log .note:has-text('stopped')")
    begin()
    page.evaluate("window.confirm = () => true")
    page.click("[aria-current] [aria-label='Delete b']")
    page.wait_for_selector("#chats [aria-current] >> text=b")
    chats(page, 2)
    page.wait_for_timeout(300)
    assert titles(page) == ["b", "Of apples"] and page.is_visible("#send")
