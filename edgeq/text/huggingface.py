"""`tokenizer.json` through the `tokenizers` library."""

import json
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import AddedToken, TokenizerSettings
from edgeq.text.pieces import byte_level_bytes, spaced_bytes, word_bytes


class JsonBackend:
    """One `tokenizer.json`. Encoding is the library's; the bytes of each token are worked out here, for streaming."""

    def __init__(self, data: bytes, settings: TokenizerSettings):
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(bytes(data))
        except ValueError as error:
            why = " ".join(str(error).split())
            raise TokenizerError(f"tokenizer.json cannot be read ({why}): download the checkpoint's own") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lock = threading.Lock()
        self._add_missing(settings)
        self.added = {
            i: AddedToken(t.content, t.special or _special_by(settings, i, t.content), t.lstrip, t.rstrip)
            for i, t in self._tokenizer.get_added_tokens_decoder().items()
        }
        self._bytes_of, self.strips_space = self._read_decoder()

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id. To ask for every token takes as long as to read the file, hence a property."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def knows(self, token: int) -> bool:
        return token >= 0 and self._tokenizer.id_to_token(token) is not None

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        # `encode_special_tokens` is a property of the whole tokenizer, hence the lock.
        with self._lock:
            if self._tokenizer.encode_special_tokens == parse_special:
                self._tokenizer.encode_special_tokens = not parse_special
            return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def piece_bytes(self, token: int) -> bytes:
        added = self.added.get(token)
        if added is not None:
            return added.content.encode()
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        return self._bytes_of(piece)

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def _add_missing(self, settings: TokenizerSettings) -> None:
        """Tokens that only tokenizer_config.json knows are added, in the order of their ids."""
        import tokenizers

        for _, token in sorted(settings.added.items()):
            if self._tokenizer.token_to_id(token.content) is None:
                self._tokenizer.add_tokens(
                    [
                        tokenizers.AddedToken(
                            token.content,
                            special=token.special,
                            lstrip=token.lstrip,
                            rstrip=token.rstrip,
                            normalized=False,
                        )
                    ]
                )

    def _read_decoder(self) -> tuple[Callable[[str], bytes], bool]:
        """(the bytes of a piece, whether the first piece's leading space is not text)."""
        decoder = self._tokenizer.decoder
        steps = _steps(json.loads(decoder.__getstate__()) if decoder is not None else None)
        kinds = {step["type"] for step in steps}
        if "ByteLevel" in kinds:
            return byte_level_bytes, False
        if kinds == {"WordPiece"}:
            return word_bytes, True
        if not kinds & {"Metaspace", "ByteFallback", "Replace"}:
            raise TokenizerError(
                f"tokenizer.json has the decoder {sorted(kinds) or 'none'}: "
                "only byte-level BPE, WordPiece and sentencepiece-like tokenizers can run"
            )
        return spaced_bytes, any(
            (step["type"] == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)
            or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        )


def _special_by(settings: TokenizerSettings, token: int, content: str) -> bool:
    """Whether tokenizer_config.json makes special what tokenizer.json does not."""
    other = settings.added.get(token)
    return other is not None and other.special and other.content == content


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A decoder as a flat list of steps."""
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder]
