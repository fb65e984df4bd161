"""Cuts a text at its added tokens, as Hugging Face's tokenizers do."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from edgeq.text.assets import AddedToken


class AddedTokens:
    """The added tokens of a tokenizer by id."""

    def __init__(self, tokens: Mapping[int, AddedToken]):
        self._tokens = tokens
        self._ids = {token.content: i for i, token in tokens.items()}
        # Those that are matched in the text as it is come before those that are matched in the normalized one; they
        # may take a part of what these would.
        self._passes = {
            parse_special: [
                _any_of(
                    t.content
                    for t in tokens.values()
                    if t.normalized == normalized and (parse_special or not t.special)
                )
                for normalized in (False, True)
            ]
            for parse_special in (False, True)
        }

    def token_id(self, token: str) -> int | None:
        """The id of an added token by its name."""
        return self._ids.get(token)

    def cut(self, text: str, parse_special: bool) -> Iterator[int | str]:
        """Ids of added tokens, and the stretches of text before, between and after them, none of them empty.

        Without `parse_special` the names of special tokens are text like any other.
        """
        first, second = self._passes[parse_special]
        for part in self._cut(text, first):
            yield from [part] if isinstance(part, int) else self._cut(part, second)

    def _cut(self, text: str, pattern: re.Pattern[str] | None) -> Iterator[int | str]:
        start = 0
        for match in pattern.finditer(text) if pattern else ():
            begin, end = match.span()
            token = self._ids[match[0]]
            added = self._tokens[token]
            if begin < start or (
                added.single_word and (_in_word(text[begin - 1 : begin]) or _in_word(text[end : end + 1]))
            ):
                continue
            while added.lstrip and begin > start and text[begin - 1].isspace():
                begin -= 1
            while added.rstrip and end < len(text) and text[end].isspace():
                end += 1
            if begin > start:
                yield text[start:begin]
            yield token
            start = end
        if start < len(text):
            yield text[start:]


def _in_word(character: str) -> bool:
    """Whether a character is part of a word; none at all is not."""
    return bool(character) and (character.isalnum() or unicodedata.category(character) in ("Pc", "Mn", "Mc", "Me"))


def _any_of(contents: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the tokens, the longest one first."""
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None
