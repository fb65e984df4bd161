"""`tokenizer.json` through the `tokenizers` library."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import AddedToken, TokenizerSettings
from edgeq.text.pair import Pair, shared_length
from edgeq.text.piece_bytes import byte_level_bytes, spaced_bytes, word_bytes
from edgeq.text.tokenizer_bounds import MOST_IDS, check_charsmaps, check_growth, check_merges


class JsonBackend:
    """One `tokenizer.json`. Encoding is the library's; the bytes of each token are worked out here, for streaming."""

    def __init__(self, data: bytes, settings: TokenizerSettings):
        import tokenizers

        check_merges(data)
        check_charsmaps(data)
        self._lock = threading.Lock()
        self._limit = sys.maxsize
        with _faults("cannot be read"):
            self._tokenizer = tokenizers.Tokenizer.from_buffer(bytes(data))
            check_growth(self._tokenizer)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._add_missing(settings)
        self.added = self._read_added()
        self._bytes_of, self.strips_space = self._read_decoder()

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id. To ask for every token takes as long as to read the file, hence a property."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def knows(self, token: int) -> bool:
        return 0 <= token < self._limit and self._tokenizer.id_to_token(token) is not None

    def keep_below(self, limit: int) -> None:
        """Forget every token from this id on: its name is text like any other."""
        self._limit = limit
        if any(i >= limit for i in self.added):
            self._forget()

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        # `encode_special_tokens` is a property of the whole tokenizer, hence the lock.
        with self._lock:
            ids = self._encode(text, add_special, parse_special)
            if max(ids, default=0) >= self._limit:
                self._forget()
                ids = self._encode(text, add_special, parse_special)
        return ids

    def encode_pair(self, first: str, second: str, most: int) -> Pair:
        with self._lock:
            found = self._encode_pair(first, second, most)
            if max(found.ids, default=0) >= self._limit:
                self._forget()
                found = self._encode_pair(first, second, most)
        return found

    def _encode_pair(self, first: str, second: str, most: int) -> Pair:
        self._tokenizer.encode_special_tokens = False
        texts = [self._tokenizer.encode(text, add_special_tokens=False) for text in (first, second)]
        one, other = (len(text) for text in texts)
        lengths = shared_length(one, other, most - self._tokenizer.num_special_tokens_to_add(True))
        for text, length in zip(texts, lengths, strict=True):
            text.truncate(length)
        whole = self._tokenizer.post_process(texts[0], texts[1])
        return Pair(list(whole.ids), list(whole.type_ids), sum(lengths) < one + other)

    def _encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        if self._tokenizer.encode_special_tokens == parse_special:
            self._tokenizer.encode_special_tokens = not parse_special
        with _faults("cannot encode this text"):
            return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def _forget(self) -> None:
        """Read the tokenizer again without the tokens that are beyond the limit."""
        import tokenizers

        if self.vocab_size > MOST_IDS:  # to write it, the library counts up to the largest
            raise TokenizerError(f"tokenizer.json has a token {self.vocab_size - 1}: download the checkpoint's own")
        with _faults("cannot lose tokens that the model has not"):
            self._tokenizer = tokenizers.Tokenizer.from_str(first_tokens(self._tokenizer.to_str(), self._limit))
        self.added = self._read_added()
        self.__dict__.pop("vocab_size", None)

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
        return found if found is None or found < self._limit else None

    def _add_missing(self, settings: TokenizerSettings) -> None:
        """Tokens that only tokenizer_config.json knows are added, in the order of their ids, and those that only the
        other files make special are."""
        import tokenizers

        def special(content: str) -> bool:
            other = names.get(content)
            return content in settings.specials or (other is not None and other.special)

        names = {token.content: token for _, token in sorted(settings.added.items())}
        known = {token.content: token for token in self._tokenizer.get_added_tokens_decoder().values()}
        for content, own in known.items():
            if special(content) and not own.special:
                own.special = True
                self._tokenizer.add_special_tokens([own])
        for token in names.values():
            if self._tokenizer.token_to_id(token.content) is None:
                added = tokenizers.AddedToken(
                    token.content,
                    special=token.special,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                    normalized=token.normalized,
                )
                self._tokenizer.add_tokens([added])
        for content in sorted(settings.specials - known.keys() - names.keys()):
            if self._tokenizer.token_to_id(content) is not None:  # a token like any other, until now
                added = tokenizers.AddedToken(content, special=True, normalized=False)
                self._tokenizer.add_special_tokens([added])

    def _read_added(self) -> dict[int, AddedToken]:
        return {
            i: AddedToken(t.content, t.special, t.lstrip, t.rstrip, t.single_word, t.normalized)
            for i, t in self._tokenizer.get_added_tokens_decoder().items()
        }

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


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    """A block in which a fault of the library, the file's, is a TokenizerError. Its panics are no Exception."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = " ".join(str(error).split())
        raise TokenizerError(f"tokenizer.json {what} ({why:.300}): download the checkpoint's own") from None


def first_tokens(text: str, limit: int) -> str:
    """A `tokenizer.json` without the tokens whose ids are `limit` or more.

    Others take their places in the vocabulary, as added tokens are numbered by its size; these have a space, so that
    no text gives them.
    """
    document = json.loads(text)
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < limit]
    model = document["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry if i < limit else [f" {i}", -1e9, *entry[2:]] for i, entry in enumerate(model["vocab"])]
    else:
        model["vocab"] = {token if i < limit else f" {i}": i for token, i in model["vocab"].items()}
    if "merges" in model:
        vocab = model["vocab"]
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if all(part in vocab for part in (*pair, "".join(pair)))]
    return json.dumps(document, ensure_ascii=False)


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A decoder as a flat list of steps."""
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder]
