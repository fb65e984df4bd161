"""Texts as the sequences of tokens that a model is calibrated with: one's own, or those that come with edgeq.

The latter lie in `edgeq/quantize/text`, a domain or a language per file, and were written for this.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from edgeq.errors import TemplateError, UsageError
from edgeq.quantize.collect import Passage
from edgeq.text.tokenizer import Tokenizer

TOKENS = 24576  # of all texts together, where nothing else is said
LENGTH = 512  # of a sequence
LEAST = 16  # tokens of a sequence: fewer tell too little of what stands in the middle of a text
LONGEST_TOKEN = 16  # characters that a token has at most, on average over a text
RANDOM = "random tokens"  # the name of that corpus
CHATS = ".jsonl"

Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Text:
    """A corpus: documents, each a text or a conversation. `strict`: the model's chat template must take these."""

    name: str
    documents: Sequence[str | Conversation]
    strict: bool = True


def shipped() -> list[Text]:
    """The texts that come with edgeq."""
    folder = files("edgeq.quantize") / "text"
    found = sorted((one for one in folder.iterdir() if one.name.endswith((".txt", CHATS))), key=lambda one: one.name)
    return [_text(one.name.rpartition(".")[0], one.read_text("utf-8"), one.name, strict=False) for one in found]


def read_text(path: str | os.PathLike[str], name: str | None = None) -> Text:
    """The corpus in a file: UTF-8 text; or, where it ends in .jsonl, a conversation a line, `{"messages": [...]}`,
    or a text, `{"text": "..."}`. Its name is the file's unless one is given.

    Raises UsageError for a file that cannot be read, is no UTF-8, is empty, or has a line of another kind.
    """
    source = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}: give a text file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source}: is not UTF-8 text: save it as UTF-8") from None
    if not content.strip():
        raise UsageError(f"{source}: is empty: give some text")
    return _text(name or os.path.basename(source), content, source)


def _text(name: str, content: str, source: str, strict: bool = True) -> Text:
    if not source.endswith(CHATS):
        return Text(name, [content], strict)
    lines = enumerate(content.splitlines(), 1)
    return Text(name, [_document(line, f"{source}: line {number}") for number, line in lines if line.strip()], strict)


def _document(line: str, where: str) -> str | Conversation:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: is not valid JSON ({error})") from None
    messages, text = (value.get(key) if isinstance(value, dict) else None for key in ("messages", "text"))
    if isinstance(text, str):
        return text
    if isinstance(messages, list) and messages and all(isinstance(one, dict) and "role" in one for one in messages):
        return messages
    raise UsageError(f'{where}: is neither {{"messages": [{{"role": ..., "content": ...}}, ...]}} nor {{"text": ...}}')


def passages(
    texts: Sequence[Text],
    tokenizer: Tokenizer,
    *,
    tokens: int = TOKENS,
    length: int = LENGTH,
    random_tokens: int = 0,
    source: str = "the model",
) -> list[Passage]:
    """`texts` cut into sequences of at most `length` tokens, and so many `random_tokens` after them.

    Where the texts have more than `tokens` in all, each gives the same share of itself, from its beginning; of a long
    one no more counts than `tokens` need. Their sequences come in an order in which, at any time, all texts are about
    as far. Each begins as a text does for the model; conversations are written by its chat template, or, where it has
    none, as lines. Raises UsageError for a text that is too short, TemplateError for a conversation that the template
    refuses.
    """
    if tokens < LEAST or length < LEAST:
        raise UsageError(f"at least {LEAST} tokens are needed, in all and of a sequence: ask for more")
    around = _around(tokenizer)
    cut = [_sequences(text, tokenizer, tokens, length, around, source) for text in texts]
    total = sum(len(ids) for sequences in cut for ids in sequences)
    placed: list[tuple[float, int, Passage]] = []
    for number, (text, sequences) in enumerate(zip(texts, cut, strict=True)):
        if total > tokens:
            sequences = _first(sequences, max(sum(map(len, sequences)) * tokens // total, LEAST))
        for i, ids in enumerate(sequences):
            placed.append(((i + 0.5) / len(sequences), number, Passage(text.name, ids)))
    in_order = [passage for _, _, passage in sorted(placed, key=lambda one: one[:2])]
    parts = _first([list(passage.tokens) for passage in in_order], tokens)  # shares of LEAST may be too much together
    found = [Passage(passage.corpus, ids) for passage, ids in zip(in_order, parts, strict=False)]
    return [*found, *_random(tokenizer, random_tokens, length, *around)]


def _first(sequences: list[list[int]], tokens: int) -> list[list[int]]:
    """The first ones, so many tokens in all, or a few less: what is left of a sequence may be too short."""
    found = []
    for ids in sequences:
        if tokens < LEAST:
            break
        found.append(ids[:tokens])
        tokens -= len(found[-1])
    return found


def _sequences(
    text: Text, tokenizer: Tokenizer, tokens: int, length: int, around: tuple[list[int], list[int]], source: str
) -> list[list[int]]:
    """Those of a text; of one that has many more than `tokens` not all. UsageError for one that has none."""
    found: list[list[int]] = []
    left = tokens
    for document in text.documents:
        if left <= 0:
            break
        if isinstance(document, str):
            document = document[: tokens * LONGEST_TOKEN]
        sequences = list(_cut(document, text, tokenizer, length, *around, source))
        found += sequences
        left -= sum(map(len, sequences))
    if not found:
        raise UsageError(f"{text.name}: is too short: give at least {LEAST} tokens of text")
    return found


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What stands before and after a text: mostly the token that begins one, and nothing."""
    ids = tokenizer.encode("")
    return ids[:1], ids[1:]


def _cut(
    document: str | Conversation,
    text: Text,
    tokenizer: Tokenizer,
    length: int,
    start: list[int],
    end: list[int],
    source: str,
) -> Iterator[list[int]]:
    """The sequences of a document, but for one at its end that is too short."""
    if isinstance(document, str):
        ids = tokenizer.encode(document, add_special=False, parse_special=False)
    elif (prompt := _written(document, text, tokenizer, source)) is not None:
        ids, start, end = tokenizer.encode(prompt, add_special=False), [], []  # a template says all
    else:
        lines = "\n\n".join(f"{message['role']}: {message.get('content')}" for message in document)
        ids = tokenizer.encode(lines, add_special=False, parse_special=False)
    step = length - len(start) - len(end)
    for first in range(0, len(ids), step):
        part = [*start, *ids[first : first + step], *end]
        if len(part) >= LEAST:
            yield part


def _written(conversation: Conversation, text: Text, tokenizer: Tokenizer, source: str) -> str | None:
    """A conversation by the chat template; None where that is not there, or refuses one that needs it not."""
    if tokenizer.chat_template is None:
        return None
    try:
        messages = tokenizer.chat_template.with_plain_text(conversation)
        return tokenizer.chat_template.render(messages, add_generation_prompt=False)
    except TemplateError as error:
        if text.strict:
            raise TemplateError(f"{text.name}: {source}: {error}") from None
        return None


def _random(tokenizer: Tokenizer, number: int, length: int, start: list[int], end: list[int]) -> list[Passage]:
    """Sequences of tokens that stand for text, drawn evenly, always the same."""
    if number < LEAST:
        return []
    special = {i for i, token in tokenizer.added.items() if token.special} | tokenizer.eos_ids | {tokenizer.bos_id}
    ids = np.array([i for i in range(tokenizer.vocab_size) if i not in special and tokenizer.piece_bytes(i)])
    drawn = np.random.Generator(np.random.PCG64(0)).choice(ids, number).tolist()
    step = length - len(start) - len(end)
    parts = [[*start, *drawn[first : first + step], *end] for first in range(0, number, step)]
    return [Passage(RANDOM, part) for part in parts if len(part) >= LEAST]
