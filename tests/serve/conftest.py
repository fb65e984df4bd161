"""Servers for tests, and a browser."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from counting import counting_model
from serving import Served, serving, slow_model, wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Two models: one counts at once, with room for 64 tokens, the other takes 10 ms a token, with room for 2000."""
    models = {
        "counting": lambda say: counting_model(),
        "slow": lambda say: slow_model(context=2000, jumps={ord("z"): ord("a")}),
    }
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        assert served.post("/models/load", model="slow").status_code == 200
        yield served


@pytest.fixture
def start() -> Iterator[Callable]:
    """start(models, rules) -> a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(serving(*arguments, **options))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, where it and playwright are installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def watched(browser) -> Iterator[Callable]:
    """watched(url, **options) -> a page in a context of its own. Fails for errors, dialogs, and what is fetched from
    elsewhere."""
    contexts, wrong, origins = [], [], set()

    def open_page(url: str, before: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        origins.add(url)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: request.url.startswith((*origins, "blob:")) or wrong.append(request.url))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        if before:
            page.add_init_script(before)
        page.goto(url)
        page.wait_for_selector("#model option", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
