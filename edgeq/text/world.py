"""RWKV's World tokenizer: pieces of bytes, of which a text becomes the longest that fit, from its beginning on.

The file has a line for each token: its number, a literal of Python (text, or bytes that are no text), the literal's
length in bytes. The number 0 has no line: it ends a text, and begins one.
"""

import re
from collections.abc import Iterator
from functools import cached_property

from edgeq.errors import TokenizerError
from edgeq.text.added import AddedTokens
from edgeq.text.assets import AddedToken, TokenizerSettings
from edgeq.text.pair import Pair, shared_length

FILE = "rwkv_vocab_v20230424.txt"
END, NAME = 0, "<|rwkv_tokenizer_end_of_text|>"
_LINE = re.compile(r"(\d{1,9}) (b?)(['\"])(.*)\3 (\d{1,9})", re.ASCII)
_ESCAPED = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_NAMED = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


class WorldBackend:
    """One vocabulary, and the added tokens of its checkpoint."""

    strips_space = False

    def __init__(self, data: bytes, settings: TokenizerSettings) -> None:
        self._pieces = read_vocabulary(data)
        end = {} if END in self._pieces else {END: AddedToken(NAME, special=True)}
        self.added = end | settings.added

    @property
    def vocab_size(self) -> int:
        return 1 + max(*self._pieces, *self.added)

    def knows(self, token: int) -> bool:
        return token in self._pieces or token in self.added

    def keep_below(self, limit: int) -> None:
        """Forget every token from this id on. TokenizerError if a byte has none then."""
        self.added = {i: token for i, token in self.added.items() if i < limit}
        self._pieces = {i: piece for i, piece in self._pieces.items() if i < limit}
        for name in ("_cutter", "_ids", "_lengths"):
            self.__dict__.pop(name, None)
        check_bytes(self._pieces)

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of the text. The vocabulary has no rule for `add_special`: the caller adds bos and eos."""
        ids: list[int] = []
        for part in self._cutter.cut(text, parse_special):
            ids += [part] if isinstance(part, int) else self._longest(part.encode())
        return ids

    def encode_pair(self, first: str, second: str, most: int) -> Pair:
        """Without special tokens: that these go around texts the settings say, and the caller does it."""
        texts = [self.encode(text, False, True) for text in (first, second)]
        lengths = shared_length(len(texts[0]), len(texts[1]), most)
        ids = texts[0][: lengths[0]] + texts[1][: lengths[1]]
        return Pair(ids, [0] * lengths[0] + [1] * lengths[1], len(ids) < sum(map(len, texts)))

    def piece_bytes(self, token: int) -> bytes:
        added = self.added.get(token)
        return self._pieces.get(token, b"") if added is None else added.content.encode()

    def token_id(self, token: str) -> int | None:
        found = self._cutter.token_id(token)
        return self._ids.get(token.encode()) if found is None else found

    def _longest(self, text: bytes) -> Iterator[int]:
        """Token after token, each the longest that fits."""
        ids, lengths, at = self._ids, self._lengths, 0
        while at < len(text):
            for length in lengths.get(text[at : at + 2], (1,)):
                token = ids.get(text[at : at + length])
                if token is not None:
                    yield token
                    at += length
                    break

    @cached_property
    def _cutter(self) -> AddedTokens:
        return AddedTokens(self.added)

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: i for i, piece in self._pieces.items()}

    @cached_property
    def _lengths(self) -> dict[bytes, list[int]]:
        """By the first two bytes, how long the pieces are that begin so, the longest first, a single byte last."""
        found: dict[bytes, set[int]] = {}
        for piece in self._ids:
            if len(piece) > 1:
                found.setdefault(piece[:2], {1}).add(len(piece))
        return {start: sorted(lengths, reverse=True) for start, lengths in found.items()}


def read_vocabulary(data: bytes) -> dict[int, bytes]:
    """The pieces by number. TokenizerError for a file that is damaged, or has no token for some byte."""
    try:
        lines = bytes(data).decode().split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{FILE} is not UTF-8: download the checkpoint's own") from error
    found: dict[int, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip("\r") and number == len(lines):
            break
        match = _LINE.fullmatch(line.removesuffix("\r"))
        piece = None if match is None else _literal(match[4], is_bytes=match[2] == "b")
        if match is None or not piece or len(piece) != int(match[5]) or int(match[1]) in found:
            raise TokenizerError(f"{FILE}: line {number} is malformed: download the checkpoint's own")
        found[int(match[1])] = piece
    check_bytes(found)
    return found


def check_bytes(pieces: dict[int, bytes]) -> None:
    """TokenizerError unless every byte is a token."""
    missing = {*range(256)} - {piece[0] for piece in pieces.values() if len(piece) == 1}
    if missing:
        raise TokenizerError(f"{FILE} has no token for the byte 0x{min(missing):02x}: download the checkpoint's own")


def _literal(written: str, is_bytes: bool) -> bytes | None:
    """What a literal without its quotes stands for; None for one that stands for nothing."""
    if "\\" not in written:
        return written.encode()
    try:
        text = written.encode("latin-1", "backslashreplace").decode("unicode_escape")
        return text.encode("latin-1" if is_bytes else "utf-8")
    except UnicodeError:
        return None


def vocabulary(pieces: dict[int, bytes]) -> bytes:
    """The file of these pieces."""
    return "".join(f"{i} {piece!r} {len(piece)}\n" for i, piece in sorted(pieces.items())).encode()


def escaped(piece: bytes) -> str:
    """A piece as GGUF writes it: as Python does."""
    return repr(piece)[2:-1]


def unescaped(text: str) -> bytes:
    """A piece that GGUF wrote."""

    def of(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1][1:], 16)]) if len(match[1]) == 3 else _NAMED.get(match[1], match[1])

    return _ESCAPED.sub(of, text.encode("utf-8", "surrogatepass"))
