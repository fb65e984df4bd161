"""`tokenizer.model` through sentencepiece, with Hugging Face's handling of special tokens around it.

sentencepiece itself knows no added tokens: the text is cut at them first, and each stretch between is encoded alone.
In legacy mode every stretch gets the leading space that sentencepiece puts before a text; otherwise only the first one.
"""

from functools import cached_property
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text import protobuf
from edgeq.text.added import AddedTokens
from edgeq.text.assets import AddedToken, TokenizerSettings
from edgeq.text.pair import Pair, shared_length
from edgeq.text.piece_bytes import spaced_bytes

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
        controls = {i for i in range(self._size) if self._spm.is_control(i) or self._spm.is_unknown(i)}
        controls |= {i for name in settings.specials if (i := self._piece_id(name)) is not None}
        self.added = {i: AddedToken(self._piece(i), special=True) for i in controls} | settings.added
        pieces = self._spm.encode("a", out_type=str)
        self.strips_space = settings.add_prefix_space and bool(pieces) and pieces[0].startswith("▁")

    @property
    def vocab_size(self) -> int:
        return max([self._size, *(i + 1 for i in self.added)])

    def knows(self, token: int) -> bool:
        return 0 <= token < self._size or token in self.added

    def keep_below(self, limit: int) -> None:
        """Forget every token from this id on: its name is text like any other."""
        self.added = {i: token for i, token in self.added.items() if i < limit}
        self.__dict__.pop("_cutter", None)
        if self._size > limit:
            self._data = _first_pieces(self._data, limit)
            self._spm, self._size = _load(self._data), limit
            self.__dict__.pop("_as_it_is", None)

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of the text. A `tokenizer.model` has no rule for `add_special`: the caller adds bos and eos."""
        ids: list[int] = []
        for place, part in enumerate(self._cutter.cut(text, parse_special)):
            ids += [part] if isinstance(part, int) else self._encode_stretch(part, first=place == 0)
        return ids

    def encode_pair(self, first: str, second: str, most: int) -> Pair:
        """Without special tokens: that these go around texts the settings say, and the caller does it."""
        texts = [self.encode(text, False, True) for text in (first, second)]
        lengths = shared_length(len(texts[0]), len(texts[1]), most)
        types = [0] * lengths[0] + [1] * lengths[1]
        ids = texts[0][: lengths[0]] + texts[1][: lengths[1]]
        return Pair(ids, types, len(ids) < sum(map(len, texts)))

    def piece_bytes(self, token: int) -> bytes:
        added = self.added.get(token)
        if added is not None:
            return added.content.encode()
        return spaced_bytes(self._piece(token)) if 0 <= token < self._size else b""

    def token_id(self, token: str) -> int | None:
        found = self._cutter.token_id(token)
        return self._piece_id(token) if found is None else found

    def _piece_id(self, piece: str) -> int | None:
        i: int = self._spm.piece_to_id(piece)
        return i if self._piece(i) == piece else None

    def _piece(self, token: int) -> str:
        try:
            piece: str = self._spm.id_to_piece(token)
        except UnicodeDecodeError:  # which the library does not look for before
            raise TokenizerError(
                f"tokenizer.model: piece {token} is not UTF-8: download the checkpoint's own"
            ) from None
        return piece

    def _encode_stretch(self, text: str, first: bool) -> list[int]:
        spaced = self.strips_space and (first or self._legacy)
        ids: list[int] = (self._spm if spaced else self._as_it_is).encode(text)
        return ids

    @cached_property
    def _cutter(self) -> AddedTokens:
        return AddedTokens(self.added)

    @cached_property
    def _as_it_is(self) -> Any:
        """The same model, which adds and removes no spaces."""
        return _load(self._data + _AS_IT_IS)


def _load(data: bytes) -> Any:
    import sentencepiece

    spm = sentencepiece.SentencePieceProcessor()
    try:
        spm.LoadFromSerializedProto(data)
    except (RuntimeError, UnicodeDecodeError) as error:  # of pieces that are no UTF-8, which its message names
        raise TokenizerError("tokenizer.model is not a sentencepiece model: download the checkpoint's own") from error
    return spm


def _first_pieces(data: bytes, count: int) -> bytes:
    """The model with its first `count` pieces only."""
    kept, pieces = [], 0
    for field, _, written in protobuf.fields_as_written(data):
        pieces += field == 1
        if field != 1 or pieces <= count:
            kept.append(written)
    return b"".join(kept)
