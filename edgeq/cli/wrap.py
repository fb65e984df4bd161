"""Text for a terminal, as it streams: words are not cut at the right edge."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TextIO

UNBOUNDED = 1 << 30  # columns
COLUMNS = 80  # where a terminal does not tell
TAB = 8  # columns from one tab stop to the next
ZERO_WIDTH_JOINER = "\u200d"
MAY_NOT_BEGIN = frozenset(",.:;!?)]}%'\"、。，．：；！？）］｝」』】〉》〕’”…ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々")
MAY_NOT_END = frozenset("([{（［｛「『【〈《〔‘“")
SKIN_TONES = range(0x1F3FB, 0x1F400)
HANGUL_WITHIN = range(0x1160, 0x1200)  # vowels and finals, drawn into the cell of the consonant before them

# What a model writes must not steer the terminal: control characters are shown, not sent. Both \n and \t stay.
_SHOWN: dict[int, int | None] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    ord("\r"): None,
    0x7F: 0x2421,
    **{code: 0xFFFD for code in range(0x80, 0xA0)},
}
_OPENS_CODE = re.compile(r"(`{3,}|~{3,})[^`]*")


def harmless(text: str) -> str:
    """The text with symbols in place of control characters, and without carriage returns."""
    return text.translate(_SHOWN)


def cells(text: str) -> int:
    """Columns that a text without tabs takes on a terminal: 2 for wide characters, 0 for combining ones."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or ord(character) in HANGUL_WITHIN:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters that no space divides: where one of them is wide, mostly."""
    if _width(before) < 2 and _width(after) < 2:
        return False
    attached = _width(after) == 0 or ord(after) in SKIN_TONES or before == ZERO_WIDTH_JOINER
    return not attached and after not in MAY_NOT_BEGIN and before not in MAY_NOT_END


def _advance(column: int, text: Iterable[str], columns: int) -> int:
    """The column after a text that begins at `column`, of a terminal that breaks lines where they are full."""
    for character in text:
        if character == "\t":
            column = min(column - column % TAB + TAB, columns - 1)
            continue
        width = _width(character)
        column = width if column + width > columns else column + width
    return column


def terminal_columns(stream: TextIO) -> int:
    """A terminal's width now. Not that of the variable COLUMNS, which does not change with it."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except OSError:
        return COLUMNS


def wrapped(text: str, columns: int) -> str:
    """A whole text."""
    wrapper = Wrapper(lambda: columns)
    return wrapper.push(text) + wrapper.finish()


class Wrapper:
    """Breaks lines between words, piece by piece: a word is held until it is known to be whole.

    A word that is longer than a line, and the lines of a fenced block of code, are left to the terminal, which breaks
    them where they are full: copied from there they have no line ends of ours. `columns` tells the terminal's width.
    """

    def __init__(self, columns: Callable[[], int]):
        self._columns = columns
        self._column = 0
        self._space = ""
        self._word = ""
        self._within = False  # the word held goes on with one that was longer than a line
        self._line = ""  # of the text itself, to know a fence
        self._fence = ""  # what opened the block of code that we are in

    def push(self, text: str) -> str:
        """What can be shown of it now."""
        return "".join(map(self._take, harmless(text)))

    def finish(self) -> str:
        """The rest, at the text's end."""
        return self._flush()

    def _take(self, character: str) -> str:
        if character == "\n":
            return self._end_line()
        self._line += character
        if self._fence:
            self._column = _advance(self._column, character, self._width_now())
            return character
        if character in " \t":
            out = self._flush()
            self._space += character
            self._within = False
            return out
        out = self._flush() if self._word and _may_break(self._word[-1], character) else ""
        if out:
            self._within = False
        self._word += character
        if cells(self._word) >= self._width_now():
            out += self._flush()
            self._within = True
        return out

    def _flush(self) -> str:
        """The word held, after its space or a line end."""
        if not self._word:
            return ""
        columns, text = self._width_now(), self._space + self._word
        fits = _advance(self._column, text, UNBOUNDED) <= columns
        if not fits and self._column > 0 and not self._within:
            text, self._column = self._word, 0
            out = "\n" + text
        else:
            out = text
        self._column = _advance(self._column, text, columns)
        self._space = self._word = ""
        return out

    def _end_line(self) -> str:
        out = self._flush() + "\n"  # without the spaces at its end: they could begin another line
        line, fence = self._line.strip(), self._fence
        if not fence:
            self._fence = match[1] if (match := _OPENS_CODE.fullmatch(line)) else ""
        elif len(line) >= len(fence) and not line.strip(fence[0]):
            self._fence = ""
        self._column, self._space, self._line, self._within = 0, "", "", False
        return out

    def _width_now(self) -> int:
        return max(self._columns(), 2)  # a wide character needs two
