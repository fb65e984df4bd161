"""The texts that a model is evaluated on, and the chunks of tokens that they are cut into."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.system.input import read_text
from edgeq.text.tokenizer import Tokenizer

LEAST = 8  # tokens of a chunk


@dataclass(frozen=True)
class Passage:
    """A text. `source` is the file that it is from, `slices` what it belongs to: a name, or `key=value` of its tags."""

    text: str
    source: str
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Tokens that a model sees at once; those after row `first` are predicted and counted."""

    ids: tuple[int, ...]
    slices: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        return len(self.ids) // 2

    @property
    def positions(self) -> int:
        return len(self.ids) - 1 - self.first


def read_passages(names: Iterable[str]) -> list[Passage]:
    """The texts of files: of a `.jsonl` file each line, an object with "text" and tags, of another the whole.

    A name may be `NAME=PATH`: the slice that all of the file belongs to. Raises UsageError for what cannot be read.
    """
    return [passage for name in names for passage in _read(name)]


def _read(name: str) -> Iterator[Passage]:
    label, _, rest = name.partition("=")
    path = Path(rest if rest and not Path(name).exists() else name)
    named = (label,) if str(path) == rest and label else ()
    text = read_text(path)
    if path.suffix != ".jsonl":
        yield Passage(text, str(path), named or (path.stem,))
        return
    for place, line in read_objects(path, text):
        if not isinstance(line.get("text"), str):
            raise UsageError(f'{place}: has no "text": give objects like {{"text": "...", "language": "de"}}')
        tags = (f"{key}={value}" for key, value in line.items() if key != "text" and isinstance(value, str | int))
        yield Passage(line["text"], str(path), (*named, *tags))


def read_objects(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line of a JSONL file that is not empty."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}:{number}: is not JSON: {error}") from error
            if not isinstance(found, dict):
                raise UsageError(f"{path}:{number}: is no JSON object: give one per line")
            yield f"{path}:{number}", found


def cut(passages: Sequence[Passage], tokenizer: Tokenizer, size: int, most: int | None = None) -> list[Chunk]:
    """Chunks of `size` tokens of each passage, at most `most` per file and slice of it; what is left at a passage's end
    is dropped, but one that is shorter is a chunk of its own.

    Where the model expects a bos token, each chunk's first one is replaced by it. Raises UsageError where there is no
    passage of LEAST tokens.
    """
    chunks: list[Chunk] = []
    taken: Counter[tuple[str, tuple[str, ...]]] = Counter()
    bos = tokenizer.bos_id if tokenizer.encode("")[:1] == [tokenizer.bos_id] else None
    for passage in passages:
        kind = (passage.source, passage.slices)
        if most is not None and taken[kind] >= most:
            continue
        ids = tokenizer.encode(_least(passage.text, size, most), parse_special=False)
        starts = range(0, len(ids) - size + 1, size) or range(int(len(ids) >= LEAST))
        for start in starts[: None if most is None else most - taken[kind]]:
            part = ids[start : start + size]
            chunks.append(Chunk(tuple(part if bos is None else [bos, *part[1:]]), passage.slices))
            taken[kind] += 1
    if not chunks:
        names = ", ".join(sorted({passage.source for passage in passages}))
        raise UsageError(f"{names}: there is no text of {LEAST} tokens or more: give a longer one")
    return chunks


def _least(text: str, size: int, most: int | None) -> str:
    """What of a text `most` chunks can need: a token stands for few characters, and tokenizing takes its time."""
    return text if most is None else text[: 32 * size * (most + 1)]


def digest(chunks: Iterable[Chunk]) -> str:
    """What chunks are known by: SHA-256 of their tokens."""
    return hashlib.sha256(json.dumps([chunk.ids for chunk in chunks]).encode()).hexdigest()
