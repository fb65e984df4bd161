"""Cuts a text at its added tokens, as Hugging Face's tokenizers do."""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from edgeq.text.assets import AddedToken


class AddedTokens:
    """The added tokens of a tokenizer by id."""

    def __init__(self, tokens: Mapping[int, AddedToken]):
        self._tokens = tokens
        self._ids = {token.content: i for i, token in tokens.items()}
        self._patterns: dict[tuple[bool, bool], re.Pattern[str] | None] = {}

    def token_id(self, token: str) -> int | None:
        """The id of an added token by its name."""
        return self._ids.get(token)

    def cut(self, text: str, parse_special: bool) -> Iterator[int | str]:
        """Ids of added tokens, and the stretches of text before, between and after them, none of them empty.

        Without `parse_special` the names of special tokens are text like any other.
        """
        # Those of the text as it is come before those of the normalized one, and may take a part of what these would
        first, second = self._pattern(parse_special, False), self._pattern(parse_special, True)
        for part in self._cut(text, first):
            yield from [part] if isinstance(part, int) else self._cut(part, second)

    def _pattern(self, parse_special: bool, normalized: bool) -> re.Pattern[str] | None:
        """Matches any token of a kind, the longest one first; thousands of them take a while to compile."""
        kind = parse_special, normalized
        if kind not in self._patterns:
            tokens = [
                t for t in self._tokens.values() if t.normalized == normalized and (parse_special or not t.special)
            ]
            ordered = sorted((token.content for token in tokens), key=len, reverse=True)
            self._patterns[kind] = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        return self._patterns[kind]

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
