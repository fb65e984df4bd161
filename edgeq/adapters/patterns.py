"""Values by the names of modules, as PEFT's configurations give them: under regular expressions.

An expression can take longer than the age of the world, and comes with a download. Those are taken that cannot: what
says how often stands behind single characters, not groups, and seldom.
"""

import re
import time
from collections.abc import Mapping
from math import inf

LONGEST = 128  # characters of a name that is held against more than a name
MOST_STEPS = LONGEST * LONGEST * 64  # that holding a name against an expression may take
SECONDS = 2.0  # for all names and expressions together
_PLAIN = re.compile(r"\^?(?:[\w-]|\\?\.)*\$?")
_TOKEN = re.compile(r"\(\?:|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


class Patterns:
    """`values` by expressions. Raises ValueError, of what it is about, for one that is none or may take long."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values: list[tuple[re.Pattern[str], bool, float]] = []
        for text, value in values.items():
            plain = _PLAIN.fullmatch(text) is not None
            if not plain and _steps(text) > MOST_STEPS:
                raise ValueError(f"{text[:80]!r} is an expression that may take very long")
            try:
                self._values.append((re.compile(rf"(.*\.)?({text})"), plain, value))
            except (re.error, OverflowError, RecursionError):
                raise ValueError(f"{text[:80]!r} is no regular expression") from None
        self._left = SECONDS

    def of(self, module: str, otherwise: float) -> float:
        """The value of the first expression that the end of a module's name matches."""
        begun = time.thread_time()
        for pattern, plain, value in self._values:
            if not plain and len(module) > LONGEST:
                raise ValueError(f"a module's name has {len(module)} characters")
            if pattern.fullmatch(module):
                return value
            if time.thread_time() - begun > self._left:
                raise ValueError("all its expressions take very long")
        self._left -= time.thread_time() - begun
        return otherwise


def _steps(text: str) -> float:
    """At most how many steps an expression takes with a name, from one place on."""
    total, branches, before = 1.0, [1], ""
    for token in _TOKEN.findall(text):
        if token in ("(", "(?:"):
            branches.append(1)
        elif token == ")" and len(branches) > 1:
            total *= branches.pop()
        elif token == "|":
            branches[-1] += 1
        elif token in ("*", "+", "{", "?"):
            if before == "(" or (before == ")" and token != "?"):
                return inf  # groups of other kinds, and those that come again
            if before not in ("*", "+", "}", "?"):  # behind these it says how, not how often
                total *= 2 if token == "?" else LONGEST
        before = token
    return total * branches[0]
