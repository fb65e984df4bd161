"""`tokenizer.model` through sentencepiece, with Hugging Face's handling of special tokens around it.

sentencepiece itself knows no added tokens: the text is cut at them first, and each stretch between is encoded alone.
In legacy mode every stretch gets the leading space that sentencepiece puts before a text; otherwise only the first one.
"""

import re
from functools import cached_property
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import AddedToken, TokenizerSettings
from edgeq.text.pieces import spaced_bytes

# ModelProto.normalizer_spec with add_dummy_prefix and remove_extra_whitespaces set to false, serialized. Protobuf lets
# what follows override what came before, so appending it is enough; sentencepiece has no stable call for that.
# The second one matters after a special token: a space there is the text's own and has to stay.
_AS_IT_IS = b"\x1a\x04\x18\x00\x20\x00"


class SentencePieceBackend:
    """One `tokenizer.model` and the added tokens of its checkpoint."""

    def __init__(self, data: bytes, settings: TokenizerSettings):
        self._data = bytes(data)
        self._spm = _load(self._data)
        self._size: int = self._spm.get_piece_size()
        self._legacy = settings.legacy
        controls = (i for i in range(self._size) if self._spm.is_control(i) or self._spm.is_unknown(i))
        self.added = {i: AddedToken(self._spm.id_to_piece(i), special=True) for i in controls} | settings.added
        self._ids = {token.content: i for i, token in self.added.items()}
        self.vocab_size: int = max([self._size, *(i + 1 for i in self.added)])
        pieces = self._spm.encode("a", out_type=str)
        self.strips_space = settings.add_prefix_space and bool(pieces) and pieces[0].startswith("▁")

    def knows(self, token: int) -> bool:
        return 0 <= token < self._size or token in self.added

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of the text. A `tokenizer.model` has no rule for `add_special`: the caller adds bos and eos."""
        ids: list[int] = []
        pattern = self._all_tokens if parse_special else self._plain_tokens
        start = 0
        while (match := pattern.search(text, start) if pattern else None) is not None:
            token = self._ids[match[0]]
            added = self.added[token]
            stretch = text[start : match.start()]
            ids += self._encode_stretch(stretch.rstrip() if added.lstrip else stretch, first=start == 0)
            ids.append(token)
            start = match.end()
            if added.rstrip:
                start = len(text) - len(text[start:].lstrip())
        return ids + self._encode_stretch(text[start:], first=start == 0)

    def piece_bytes(self, token: int) -> bytes:
        added = self.added.get(token)
        if added is not None:
            return added.content.encode()
        return spaced_bytes(self._spm.id_to_piece(token)) if 0 <= token < self._size else b""

    def token_id(self, token: str) -> int | None:
        if token in self._ids:
            return self._ids[token]
        i: int = self._spm.piece_to_id(token)
        return i if self._spm.id_to_piece(i) == token else None

    def _encode_stretch(self, text: str, first: bool) -> list[int]:
        if not text:
            return []
        spaced = self.strips_space and (first or self._legacy)
        ids: list[int] = (self._spm if spaced else self._as_it_is).encode(text)
        return ids

    @cached_property
    def _as_it_is(self) -> Any:
        """The same model, which adds and removes no spaces."""
        return _load(self._data + _AS_IT_IS)

    @cached_property
    def _all_tokens(self) -> re.Pattern[str] | None:
        return _any_of([token.content for token in self.added.values()])

    @cached_property
    def _plain_tokens(self) -> re.Pattern[str] | None:
        return _any_of([token.content for token in self.added.values() if not token.special])


def _load(data: bytes) -> Any:
    import sentencepiece

    spm = sentencepiece.SentencePieceProcessor()
    try:
        spm.LoadFromSerializedProto(data)
    except RuntimeError as error:
        raise TokenizerError("tokenizer.model is not a sentencepiece model: download the checkpoint's own") from error
    return spm


def _any_of(contents: list[str]) -> re.Pattern[str] | None:
    """Matches any of the tokens, the longest one first."""
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None
