"""The tokenizer of a model: text to token ids and back, and which ids begin and end a text."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Protocol

from edgeq.errors import TokenizerError
from edgeq.text.assets import AddedToken, TokenizerSettings, read_settings
from edgeq.text.chat import ChatTemplate
from edgeq.text.detokenizer import Detokenizer
from edgeq.text.pair import Pair, shared_length
from edgeq.text.world import FILE as WORLD
from edgeq.text.world import NAME as END_OF_WORLD
from edgeq.text.world import WorldBackend

# Tokens by which chat models end their turn. Checkpoints often name only the end-of-text token in their JSON files.
END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|eot|>",
    "<EOT>",
    "[EOT]",
    END_OF_WORLD,
)


FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spm.model",
    "vocab.txt",
    WORLD,
)  # assets that hold a vocabulary, the best first


class Backend(Protocol):
    """What a kind of tokenizer file has to offer."""

    strips_space: bool  # the first piece of a text carries a space that is not part of the text
    added: dict[int, AddedToken]

    @property
    def vocab_size(self) -> int: ...
    def knows(self, token: int) -> bool: ...
    def keep_below(self, limit: int) -> None: ...
    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]: ...
    def encode_pair(self, first: str, second: str, most: int) -> Pair: ...
    def piece_bytes(self, token: int) -> bytes: ...
    def token_id(self, token: str) -> int | None: ...


class Tokenizer:
    """Text to token ids and back.

    `bos_id` is None where the model has no beginning-of-text token. `eos_ids` holds every id that ends an answer: the
    end-of-text token and the end-of-turn tokens. `beyond` are the added tokens that were forgotten.
    """

    def __init__(self, backend: Backend, settings: TokenizerSettings):
        self._backend = backend
        self._settings = settings
        self.beyond: dict[int, str] = {}
        self.bos_id = self._role_id("bos_token", settings.bos_ids)
        self.eos_ids = self._find_eos_ids()
        self._hidden = frozenset(i for i, token in backend.added.items() if token.special)

    @property
    def added(self) -> Mapping[int, AddedToken]:
        """The tokens that are matched in a text before any merging happens, by id."""
        return self._backend.added

    def keep_below(self, vocab_size: int) -> None:
        """Forget the tokens that are beyond a model's vocabulary: their names become text like any other."""
        self.beyond |= {i: token.content for i, token in sorted(self.added.items()) if i >= vocab_size}
        self._backend.keep_below(vocab_size)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._backend.vocab_size

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        `add_special` adds what the model expects around a text (mostly the bos token). With `parse_special` the names
        of control tokens in the text become these tokens; without it they are text like any other.
        """
        settings = self._settings
        text = text.encode("utf-8", errors="replace").decode()  # half a surrogate pair is no text
        if not add_special or settings.add_bos is None:
            return self._backend.encode(text, add_special, parse_special)
        ids = self._backend.encode(text, False, parse_special)
        if settings.add_bos and self.bos_id is not None:
            ids.insert(0, self.bos_id)
        if settings.add_eos and (eos := self._role_id("eos_token", settings.eos_ids)) is not None:
            ids.append(eos)
        return ids

    def encode_pair(self, first: str, second: str, most: int) -> Pair:
        """Two texts as a model that compares them expects them, in at most `most` tokens: the longer one loses its
        end first."""
        settings = self._settings
        first, second = (text.encode("utf-8", errors="replace").decode() for text in (first, second))
        if settings.add_bos is None:
            return self._backend.encode_pair(first, second, most)
        before = [self.bos_id] if settings.add_bos and self.bos_id is not None else []
        eos = self._role_id("eos_token", settings.eos_ids) if settings.add_eos else None
        after = [] if eos is None else [eos]
        texts = [self._backend.encode(text, False, True) for text in (first, second)]
        lengths = shared_length(len(texts[0]), len(texts[1]), most - 2 * len(before + after))
        whole = [[*before, *ids[:count], *after] for ids, count in zip(texts, lengths, strict=True)]
        cut = sum(lengths) < sum(map(len, texts))
        return Pair([*whole[0], *whole[1]], [0] * len(whole[0]) + [1] * len(whole[1]), cut)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of token ids; `special` shows control tokens by their names."""
        stream = self.stream(special=special)
        return "".join([stream.push(i) for i in ids]) + stream.flush()

    def stream(
        self, continues: bool = False, special: bool = False, shown: frozenset[int] = frozenset()
    ) -> Detokenizer:
        """A detokenizer for a text that comes token by token.

        `continues`: the text goes on from one before it, so that a leading space is part of it. `special` shows control
        tokens by their names; else only those that are `shown`.
        """
        hidden = frozenset[int]() if special else self._hidden - shown
        return Detokenizer(self.piece_bytes, hidden.__contains__, self._backend.strips_space and not continues)

    def piece_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for ids that only pad the model's vocabulary."""
        return self._backend.piece_bytes(token)

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry by its name, e.g. "<|im_start|>"."""
        return self._backend.token_id(token)

    @property
    def infill_ids(self) -> tuple[int, ...]:
        """The tokens before what comes first, before what comes after, and before the middle that is to be filled in;
        none where the checkpoint's files name no such tokens."""
        found = tuple(i for name in self._settings.infill if (i := self._backend.token_id(name)) is not None)
        return found if len(found) == len(self._settings.infill) else ()

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """How a conversation is written for this model; None where the checkpoint has no template."""
        source = self._settings.chat_template
        return ChatTemplate(source, self._settings.roles) if source else None

    def template_from(self, source: str) -> ChatTemplate:
        """A chat template of the caller's own, with this model's special tokens."""
        return ChatTemplate(source, self._settings.roles)

    def _role_id(self, role: str, fallback: tuple[int, ...]) -> int | None:
        name = self._settings.roles.get(role)
        if name is not None:
            return self._backend.token_id(name)
        if role in self._settings.absent:
            return None
        return next((i for i in fallback if self._backend.knows(i)), None)

    def _find_eos_ids(self) -> frozenset[int]:
        ids = {i for i in self._settings.eos_ids if self._backend.knows(i)}
        own = self._role_id("eos_token", self._settings.eos_ids)
        if own is not None:
            ids.add(own)
        by_name = {token.content: i for i, token in self._backend.added.items()}
        ends = {name for name in END_OF_TURN if name in by_name}
        if {"<|return|>", "<|call|>"} <= ends:
            ends.discard("<|end|>")  # the "harmony" format: <|end|> only ends one message of an answer
        return frozenset(ids | {by_name[name] for name in ends})


def load_tokenizer(assets: Mapping[str, bytes], source: str = "the model", vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer in a model's assets (file name -> bytes): the first of FILES.

    Of a model with `vocab_size` rows it gives ids below that only. Raises TokenizerError, which begins with `source`,
    where there is none, it cannot be read, or the tokens that begin and end a text are beyond the model's.
    """
    try:
        settings = read_settings(assets)
        tokenizer = _read(assets, settings)
        if vocab_size is not None:
            _check_special_ids(tokenizer, settings, vocab_size)
            tokenizer.keep_below(vocab_size)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from error
    return tokenizer


def _check_special_ids(tokenizer: Tokenizer, settings: TokenizerSettings, vocab_size: int) -> None:
    ids = {*tokenizer.eos_ids, *settings.eos_ids, tokenizer.bos_id, *tokenizer.encode("")} - {None}
    outside = [i for i in ids if i is not None and i >= vocab_size]
    if outside:
        raise TokenizerError(
            f"the tokenizer's special token {min(outside)} is beyond the model's vocabulary of {vocab_size}: "
            "use the tokenizer that belongs to the checkpoint"
        )


def beyond_notes(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """A line about the added tokens that a model of so many rows has not, if there are any."""
    if not tokenizer.beyond:
        return []
    named = [f"{name} ({i})" for i, name in tokenizer.beyond.items()]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    are, they = ("is", "it is") if len(named) == 1 else ("are", "they are")
    what = f"the tokenizer's {', '.join(named[:3])}{more} {are} beyond the model's {vocab_size} rows"
    return [f"{what}: {they} taken as text"]


def _read(assets: Mapping[str, bytes], settings: TokenizerSettings) -> Tokenizer:
    if "tokenizer.json" in assets:
        from edgeq.text.huggingface import JsonBackend

        return Tokenizer(JsonBackend(assets["tokenizer.json"], settings), settings)
    if "tokenizer.model" in assets:
        from dataclasses import replace

        from edgeq.text.spm import SentencePieceBackend

        if settings.add_bos is None:  # what Hugging Face's Llama tokenizer does unless told otherwise
            settings = replace(settings, add_bos=True)
        return Tokenizer(SentencePieceBackend(assets["tokenizer.model"], settings), settings)
    if WORLD in assets:
        return Tokenizer(WorldBackend(assets[WORLD], settings), settings)
    if assets.keys() & {"spm.model", "vocab.txt"}:
        from edgeq.text.huggingface import JsonBackend
        from edgeq.text.unigram import from_sentencepiece
        from edgeq.text.wordpiece import from_vocabulary

        name, read = ("spm.model", from_sentencepiece) if "spm.model" in assets else ("vocab.txt", from_vocabulary)
        data = json.dumps(read(assets[name], settings), ensure_ascii=False)
        try:
            return Tokenizer(JsonBackend(data.encode(), settings), settings)
        except TokenizerError as error:
            raise TokenizerError(str(error).replace("tokenizer.json", name)) from error
    raise TokenizerError("has no tokenizer.json or tokenizer.model: put one beside the checkpoint and convert it again")
