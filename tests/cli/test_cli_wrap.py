import random

import pytest

from edgeq.cli.wrap import Wrapper, cells, harmless


def wrapped(text: str, columns: int, size: int = 1) -> str:
    """The text after it came in pieces of `size` characters."""
    wrapper = Wrapper(lambda: columns)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return "".join([*map(wrapper.push, pieces), wrapper.finish()])


def rows(text: str, columns: int) -> list[str]:
    """The rows of a terminal that shows the text: it breaks a line where the next character has no room."""
    screen = [""]
    for character in text:
        if character == "\n":
            screen.append("")
        elif cells(screen[-1] + character) > columns:
            screen.append(character)
        else:
            screen[-1] += character
    return screen


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("the quick brown fox", 10, ["the quick", "brown fox"]),
        ("exactly ten", 7, ["exactly", "ten"]),
        ("0123456789 next", 10, ["0123456789", "next"]),
        ("0123456789\nnext", 10, ["0123456789", "next"]),
        ("a  b", 10, ["a  b"]),
        ("trailing   \nx", 9, ["trailing", "x"]),
        ("  - an indented item", 12, ["  - an", "indented", "item"]),
        ("see 0123456789abcdef end", 10, ["see", "0123456789", "abcdef end"]),
        ("0123456789abcdef", 10, ["0123456789", "abcdef"]),
        ("\n\na", 10, ["", "", "a"]),
        ("a\tb c", 10, ["a\tb", "c"]),
        ("我喜欢猫和狗", 6, ["我喜欢", "猫和狗"]),
        ("我喜欢猫和狗", 5, ["我喜", "欢猫", "和狗"]),
        ("我喜欢。猫", 6, ["我喜", "欢。猫"]),
        ("我喜「猫」", 6, ["我喜", "「猫」"]),
        ("abc我def", 5, ["abc我", "def"]),
        ("e\u0301e\u0301e\u0301 e\u0301e\u0301", 6, ["e\u0301e\u0301e\u0301 e\u0301e\u0301"]),
        ("x 👍🏽", 4, ["x", "👍🏽"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_are_broken_between_words(text, columns, shown, size):
    out = wrapped(text, columns, size)
    assert [row.rstrip() for row in rows(out, columns)] == shown


def test_a_word_comes_when_it_is_whole():
    wrapper = Wrapper(lambda: 10)
    assert [wrapper.push(piece) for piece in ("Hel", "lo", " wor", "ld", "!")] == ["", "", "Hello", "", ""]
    assert wrapper.finish() == "\nworld!"


def test_code_is_left_as_it_is():
    code = "    x = some_function(an_argument, another)  # a comment\n"
    text = f"Look at this here:\n```python\n{code}```\nand go on after it\n"
    out = wrapped(text, 16)
    assert out == f"Look at this\nhere:\n```python\n{code}```\nand go on after\nit\n"


@pytest.mark.parametrize("line", ["```", "~~~~", "  ```sh"])
def test_a_fence_is_closed_by_its_own_kind(line):
    fence = line.strip().removesuffix("sh")
    inner = "~~~" if "`" in line else "```"
    text = f"{line}\na b c d e\n{inner}\na b c d e\n{fence}\na b c d e\n"
    assert wrapped(text, 5) == f"{line}\na b c d e\n{inner}\na b c d e\n{fence}\na b c\nd e\n"
    assert wrapped("```x``` b c d\n", 9) == "```x``` b\nc d\n", "code within a line opens no block"


def test_the_width_is_asked_for_each_word():
    columns = [20]
    wrapper = Wrapper(lambda: columns[0])
    out = wrapper.push("one two three four ")
    columns[0] = 9
    out += wrapper.push("five six seven ") + wrapper.finish()
    assert out == "one two three four\nfive six\nseven"


def test_control_characters_are_shown_not_sent():
    assert harmless("a\x1b[2Jb\r\n\tc\x7f\x9b") == "a␛[2Jb\n\tc␡\ufffd"


def test_any_text_keeps_its_words_and_its_lines():
    """Seeded texts: the words are the same, no row is too long, and no word is cut that fits in a row."""
    draw = random.Random(5)
    for _ in range(200):
        columns = draw.randint(2, 30)
        words = ["".join(draw.choices("abc", k=draw.randint(1, 12))) for _ in range(30)]
        text = "".join(word + draw.choice([" ", " ", "  ", "\n", "\n\n"]) for word in words)
        out = wrapped(text, columns, draw.randint(1, 9))
        assert out.split() == words
        assert out.count("\n\n") == text.count("\n\n")
        shown = [word for row in rows(out, columns) for word in row.split()]
        assert [word for word in words if len(word) <= columns and word not in shown] == []
