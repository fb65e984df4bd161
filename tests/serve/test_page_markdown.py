"""Markdown of the page: what models write of it, and what may not come of it."""

import json

import pytest

SHOW = """async (text) => {
  const { Markdown } = await import("/markdown.js");
  const into = document.createElement("div");
  into.className = "text";
  document.getElementById("log").replaceChildren(into);
  new Markdown(into).show(text, true);
  return into.innerHTML;
}"""
FOUND = """() => [...document.querySelectorAll("#log .text *")].map((one) => [one.localName,
  Object.fromEntries([...one.attributes].map(({ name, value }) => [name, value]))])"""
TAGS = {"p", "br", "hr", "h1", "ul", "li", "blockquote", "pre", "code", "em", "strong", "sub", "sup", "kbd", "a"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "span", "div", "button"}
ATTRIBUTES = {"href", "title", "start", "align", "class", "target", "rel", "type", "tabindex"}

HOSTILE = [
    "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "<div>\n<img src=https://elsewhere.example/a.png>\n\n<iframe srcdoc='<script>alert(1)</script>'></iframe>\n</div>",
    "<style>@import 'https://elsewhere.example/';</style>\n<link rel=prefetch href=https://elsewhere.example/>",
    "<svg><script>alert(1)</script></svg> <math><mi//xlink:href='data:x,<script>alert(4)</script>'>",
    "<details open ontoggle=alert(1)><summary>x</summary></details> <form action=https://elsewhere.example/><input></form>",
    "<base href=https://elsewhere.example/> <meta http-equiv=refresh content='0;url=https://elsewhere.example/'>",
    "[x](javascript:alert(1)) [x](JaVaScRiPt:alert(1)) [x](&#106;avascript:alert(1)) [x](java\tscript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>) [x](vbscript:x) [x](file:///etc/passwd) [x](/metrics) [x](#log)",
    "[a]: javascript:alert(1)\n\n[a] [b]\n\n[b]: <data:text/html,x>",
    '![x](https://elsewhere.example/x.png "t") ![x](x.png) [![x](https://elsewhere.example/x.png)](javascript:alert(1))',
    '[x](https://example.com "\\"onclick=alert(1)") <https://example.com/"onmouseover="alert(1)>',
    '```"><img src=x onerror=alert(1)>\ncode\n```\n```x" onclick="alert(1)\ncode\n```',
    "```html\n<script>alert(1)</script><img src=x onerror=alert(1)>\n```",
    "| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |\n|---|---|\n| <script>alert(1)</script> | `<b>` |",
    "<br onclick=alert(1)> <kbd style=color:red>x</kbd> <sub><img src=x onerror=alert(1)></sub>",
    "<a href=https://example.com onclick=alert(1) style=position:fixed>x</a> <p class=failed id=send>y</p>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript> <!--<img src='--><img src=x>",
    "> " * 6000 + "<img src=x onerror=alert(1)>",
    "- " * 3000 + "<img src=x onerror=alert(1)>",
    "*a" * 20000 + "a." * 20000 + "@" + "[" * 20000 + "`" * 9000,
]


@pytest.fixture(scope="module")
def page(served, browser):
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("#model option", state="attached")
    yield page
    page.close()


def test_hostile_texts_stay_harmless(served, watched):
    page = watched(served.url)  # which fails for dialogs, errors, violations of the policy, and requests elsewhere
    for text in HOSTILE:
        page.evaluate(SHOW, text)
        for tag, attributes in page.evaluate(FOUND):
            assert tag in TAGS and attributes.keys() <= ATTRIBUTES, (tag, attributes)
            if tag == "a" and "href" in attributes:
                assert attributes["href"].startswith(("https://", "http://", "mailto:"))
                assert (attributes["target"], attributes["rel"]) == ("_blank", "noopener noreferrer")
    page.wait_for_timeout(100)


def test_markup_is_shown_as_it_was_written(page):
    page.evaluate(SHOW, "<b>two</b> & <think>\n\n<div>\n*x*\n</div>\n\nline<br>break H<sub>2</sub>O")
    assert page.inner_text("#log") == "<b>two</b> & <think>\n\n<div>\n*x*\n</div>\n\nline\nbreak H2O"
    assert page.inner_text("#log sub") == "2"


def test_what_models_write(page):
    text = "# One\n\n3. three\n   - *in*\n4. ~~four~~\n\n- [x] done\n\n| a | b |\n|---|--:|\n| `c` | **d** |\n\n"
    page.evaluate(SHOW, f"{text}> q\n\nx\ny [l](https://example.com/)")
    found = page.evaluate(FOUND)
    assert ["ol", {"start": "3"}] in found and ["td", {"align": "right"}] in found
    assert {"h1", "em", "del", "strong", "blockquote", "br", "a"} <= {tag for tag, _ in found}
    assert page.inner_text("#log .text > ul li") == "☑ done"
    assert page.evaluate("getComputedStyle(document.querySelector('#log td:last-child')).textAlign") == "right"


GROWING = """async ([text, step]) => {
  const { Markdown } = await import("/markdown.js");
  const html = (text, ended) => {
    const into = document.createElement("div");
    new Markdown(into).show(text, ended);
    return into.innerHTML;
  };
  const into = document.createElement("div");
  const grows = new Markdown(into);
  for (let i = 0; i < text.length; i += step) {
    grows.show(text.slice(0, i), false);
    if (!text.includes("]: ") && into.innerHTML !== html(text.slice(0, i), false)) return text.slice(0, i);
  }
  grows.show(text, true);
  return into.innerHTML === html(text, true) ? null : text;
}"""
GROWN = [
    "# a\n\nb *c*\nd\n\n- e\n\n- f\n\n  g\n    - h\n\nnot\n---\n\n***\n\n    code\n\n1. x\n\n2. y\n",
    "```py\ndef f():\n\n  pass\n```\nx\n~~~\n```\n~~~\n| a | b |\n|---|---|\n| c | d |\n\ne\n> f\ng\n\n> h",
    "<div>\n\ni\n</div>\nj\n<!-- k\n\n-->\n***\n\n+ l\n\n  ```\n  m\n\n  ```\n\n1) n\n\n12345. o",
    "[a] and [b][a]\n\nlater\n\n[a]: https://example.com/\n\nlast",
    "]: &amp;\n-->\na\n|---|---|\n| a | b |\n+ p\n\tt",  # of which only the end shows how it begins
    "a\r\n\r\nb\r\n- c\r\n\r\n\td\n\n\n\n  \n* e\n+ f\n1) g\n\n\ttab\n",
]


@pytest.mark.parametrize("step", [1, 7])
def test_what_grows_is_what_comes_at_once(page, step):
    for text in GROWN:
        assert page.evaluate(GROWING, [text, step]) is None


CODE = "```python\ndef f():\n    return '<b>'\n```\n\n```nonsense\nx = 1\n```\n\n    plain"


def test_code_is_coloured_once_there_is_some(served, watched):
    page = watched(served.url, color_scheme="light", permissions=["clipboard-read", "clipboard-write"])
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    page.evaluate(SHOW, "`no` block")
    assert asked == []
    page.evaluate(SHOW, CODE)
    page.wait_for_selector("#log .hljs-keyword")
    assert asked == ["highlight.min.js"]
    assert page.locator("#log .frame").count() == 3 and page.locator("#log .frame:nth-child(2) pre span").count() == 0
    assert page.inner_text("#log .frame:first-child pre").rstrip() == "def f():\n    return '<b>'"
    colour = "getComputedStyle(document.querySelector('.hljs-keyword')).color"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != light
    page.click("#log .frame:first-child .bar button")
    page.wait_for_selector("#log .frame:first-child .bar >> text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "def f():\n    return '<b>'"
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("#log .frame:nth-child(2) .bar button")
    page.wait_for_selector("#log .frame:nth-child(2) .bar >> text=Copied")


def test_a_page_that_keeps_nothing_shows_hostile_names_as_text(page):
    """Titles and names of files are texts, wherever they come from."""
    hostile = "<img src=x onerror=alert(1)>"
    chat = {
        "id": "h",
        "title": hostile,
        "at": 1,
        "messages": [{"role": "user", "content": hostile, "files": [{"name": hostile, "text": hostile}]}],
    }
    page.set_input_files(
        "#file", {"name": "h.json", "mimeType": "application/json", "buffer": json.dumps([chat]).encode()}
    )
    page.click("#chats .open")
    page.wait_for_selector("#log .file")
    assert page.evaluate("document.querySelectorAll('#log img, #chats img').length") == 0
    assert page.inner_text("#chats .open") == hostile
