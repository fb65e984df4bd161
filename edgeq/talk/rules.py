"""Grammars in llguidance's dialect of Lark, put together rule by rule."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Rules:
    """The rules of one grammar. Methods give the expressions that stand for what they are told."""

    def __init__(self, control: Mapping[str, int], lenient: bool = True) -> None:
        """`control` are the ids of control tokens by name: in a grammar they are no text. With `lenient`, keywords of
        a schema that cannot be followed are passed over."""
        self._control, self._lenient = control, lenient
        self._pattern = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
        self._rules: dict[str, tuple[str, str]] = {}  # name -> (how it is read, expression)

    def literal(self, text: str) -> str:
        """A text as it is; names of control tokens in it are these tokens."""
        parts, at = [], 0
        for found in self._pattern.finditer(text):
            parts += [quoted(text[at : found.start()]), f"<[{self._control[found[0]]}]>"]
            at = found.end()
        said = " ".join(part for part in (*parts, quoted(text[at:])) if part)
        return said or '""'

    def json(self, schema: Any) -> str:
        """A JSON value that follows a schema, spaced as chat templates write it: free white space might never end."""
        how = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": self._lenient}
        said = {**schema, "x-guidance": how} if isinstance(schema, Mapping) else schema
        return self._rule(f"%json {json.dumps(said)}")

    def text_until(self, end: str) -> str:
        """Any text, up to the first occurrence of `end`, and that."""
        found = self._pattern.search(end)
        if found is None:
            return self._rule(f"/(.|\\n)*/ {quoted(end)}", "[lazy]")
        before, rest = end[: found.start()], self.literal(end[found.start() :])
        if not before.strip():  # no text can hold a control token
            return f"/(.|\\n)*/ {rest}"
        return self._rule(f"/(.|\\n)*/ {quoted(before)}", "[lazy]") + f" {rest}"

    def sequence(self, parts: Sequence[tuple[str, str, bool]], between: str) -> str:
        """Parts in their order, each a text and an expression behind it, with `between` between them; those that need
        not be there (False) can be left out."""
        first = behind = '""'  # what may be written where no part is before it, and behind one
        for text, expression, needed in reversed(parts):
            rest = self._rule(expression)
            first, behind = (
                # one text: nothing else may begin as a shorter one would end
                self._rule(f"{self.literal(lead + text)} {rest} {behind}" + ("" if needed else f" | {without}"))
                for lead, without in (("", first), (between, behind))
            )
        return first

    def named(self, name: str, expression: Callable[[], str]) -> str:
        """A rule by its name, made where there is none yet."""
        if name not in self._rules:
            self._rules[name] = ("", "")  # so that it may speak of itself
            self._rules[name] = ("", expression())
        return name

    def lark(self, start: str) -> str:
        """The grammar that begins with `start`."""
        return "\n".join(
            [f"start: {start}", *(f"{name}{how}: {said}" for name, (how, said) in self._rules.items()), ""]
        )

    def _rule(self, expression: str, how: str = "") -> str:
        name = f"rule_{len(self._rules)}"
        self._rules[name] = (how, expression)
        return name


def quoted(text: str) -> str:
    """A literal in a grammar; "" for no text."""
    return json.dumps(text, ensure_ascii=False) if text else ""
