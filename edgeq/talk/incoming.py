"""Text that comes bit by bit, read as if it were all there.

The methods of `Incoming` are generators that yield where they need more text; what reads with them (`yield from`) is
written straight on, and gives the same however the text is cut.
"""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
Say = Callable[[str], None]

SPACE = " \t\r\n"


class Unreadable(Exception):
    """What comes is not what was expected."""


def nowhere(text: str) -> None:
    """Says nothing of a text."""


class Incoming:
    """The text that has come and was not read yet."""

    def __init__(self) -> None:
        self._text = ""
        self._ended = False
        self._noted: list[str] | None = None

    def push(self, text: str) -> None:
        self._text += text

    def end(self) -> None:
        """No more comes."""
        self._ended = True

    def note(self) -> None:
        """Keep what is read from here on, for `noted`."""
        self._noted = []

    def noted(self) -> str:
        """What was read since `note`."""
        found, self._noted = "".join(self._noted or ()), None
        return found

    def _take(self, count: int) -> str:
        taken, self._text = self._text[:count], self._text[count:]
        if self._noted is not None:
            self._noted.append(taken)
        return taken

    def until(self, marks: Sequence[str], say: Say = nowhere, keep: bool = False) -> Steps[str | None]:
        """Say the text before the first of `marks` as it comes, and take the mark, unless told to `keep` it. Which it
        is; None at the end of the text."""
        while True:
            found = min(((at, mark) for mark in marks if (at := self._text.find(mark)) >= 0), default=None)
            if found is not None:
                say(self._take(found[0]))
                if not keep:
                    self._take(len(found[1]))
                return found[1]
            say(self._take(len(self._text) if self._ended else len(self._text) - self._beginning(marks)))
            if self._ended:
                return None
            yield

    def collect(self, *marks: str, keep: bool = False) -> Steps[tuple[str, str | None]]:
        """The text before the first of `marks`, and which it is."""
        parts: list[str] = []
        mark = yield from self.until(marks, parts.append, keep)
        return "".join(parts), mark

    def peek(self, count: int = 1) -> Steps[str]:
        """The next characters, not taken; fewer at the end."""
        while len(self._text) < count and not self._ended:
            yield
        return self._text[:count]

    def space(self) -> Steps[None]:
        """Skip white space."""
        while True:
            self._take(len(self._text) - len(self._text.lstrip(SPACE)))
            if self._text or self._ended:
                return
            yield

    def accept(self, literal: str) -> Steps[bool]:
        """Take a literal if it is what comes next."""
        while len(self._text) < len(literal) and not self._ended and literal.startswith(self._text):
            yield
        if not self._text.startswith(literal):
            return False
        self._take(len(literal))
        return True

    def expect(self, literal: str) -> Steps[None]:
        """Take a literal, its white space and that before it being of no account. Raises Unreadable."""
        yield from self.space()
        if not (yield from self.accept(literal.strip(SPACE))):
            raise Unreadable

    def value(self, say: Say) -> Steps[None]:
        """Say a JSON value as it comes, as it is written. Raises Unreadable where there is none."""
        depth, quoted, escaped, begun = 0, False, False, False
        yield from self.space()
        while True:
            for i, character in enumerate(self._text):
                if quoted:
                    quoted, escaped = escaped or character != '"', character == "\\" and not escaped
                    done = not quoted and not depth
                elif character in "[{":
                    depth, done = depth + 1, False
                elif character in "]}" and depth:
                    depth -= 1
                    done = not depth
                elif not depth and (character in ",]}<" or character in SPACE):  # after a number or a word
                    if not begun:
                        raise Unreadable
                    say(self._take(i))
                    return
                else:
                    quoted, done = character == '"', False
                begun = True
                if done:
                    say(self._take(i + 1))
                    return
            say(self._take(len(self._text)))
            if self._ended:
                if not begun:
                    raise Unreadable
                return
            yield

    def enclosed(self, opened: str, closed: str, quotes: Sequence[str], escapes: bool = True) -> Steps[str]:
        """From a bracket to the one that closes it, brackets within `quotes` not counted. Raises Unreadable where the
        text ends first, or does not begin so."""
        taken: list[str] = []
        depth, quote = 0, ""
        while True:
            rest = yield from self.peek(max(map(len, quotes)))
            if not rest:
                raise Unreadable
            mark = next((q for q in quotes if rest.startswith(q) and (not quote or q == quote)), "")
            if mark:
                quote = "" if quote else mark
                taken.append(self._take(len(mark)))
                continue
            character = rest[0]
            if quote and escapes and character == "\\":
                yield from self.peek(2)
                taken.append(self._take(2))
                continue
            if not quote:
                depth += (character in opened) - (character in closed)
                if not depth and not taken and character not in opened:
                    raise Unreadable
            taken.append(self._take(1))
            if not depth and not quote:
                return "".join(taken)

    def _beginning(self, marks: Sequence[str]) -> int:
        """Length of the longest end of the text that begins a mark."""
        longest = min(max(map(len, marks), default=1) - 1, len(self._text))
        ends = (length for length in range(longest, 0, -1) if any(m.startswith(self._text[-length:]) for m in marks))
        return next(ends, 0)
