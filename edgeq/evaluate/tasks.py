"""Tasks with right answers: what may be asked, and from which files it is read.

A task is a file; each line of a `.jsonl` file is an item, an object of one of these layouts:

    {"prompt": "...", "choices": ["...", "..."], "answer": 0}     choose; `answer` counts from 0
    {"prompt": "...", "target": "..."}                            go on; right where the target is likeliest
    {"ctx": "...", "endings": [...], "label": 0}                  HellaSwag
    {"goal": "...", "sol1": "...", "sol2": "...", "label": 0}     PIQA; or the labels lie in NAME-labels.lst beside it
    {"text": "..."}                                               LAMBADA: the last word is the target

Choices and targets are joined to the prompt as they are, so they begin with a space where one belongs. A `.txt` file is
HellaSwag as llama.cpp reads it: of each item six lines, the text, the number of the right ending and four endings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.evaluate.texts import read_objects
from edgeq.system.input import read_text

HELLASWAG_LINES = 6


@dataclass(frozen=True)
class Item:
    """One question: `choices` go on from `prompt`, and number `answer` is right; a single one is a target."""

    prompt: str
    choices: tuple[str, ...]
    answer: int = 0


@dataclass(frozen=True)
class Task:
    """A file of items, of one kind."""

    name: str
    items: tuple[Item, ...]

    @property
    def chooses(self) -> bool:
        """Whether there is something to choose from, rather than a target to go on with."""
        return len(self.items[0].choices) > 1


def read_task(path: Path, most: int | None = None) -> Task:
    """The task of a file, its first `most` items. Raises UsageError for one that cannot be read or is of no layout."""
    text = read_text(path)
    read = _hellaswag_text(path, text) if path.suffix == ".txt" else _objects(path, text)
    items = []
    for item in read:
        items.append(item)
        if len(items) == most:
            break
    if not items:
        raise UsageError(f"{path}: holds no item: give a file of a task")
    if len({len(item.choices) > 1 for item in items}) > 1:
        raise UsageError(f"{path}: mixes choices and targets: make two files of it")
    name = (
        path.parent.name if path.stem in ("valid", "test", "tests", "validation", "val", "train", "dev") else path.stem
    )
    return Task(name, tuple(items))


def _objects(path: Path, text: str) -> Iterator[Item]:
    labels = path.with_name(f"{path.stem}-labels.lst")
    answers = read_text(labels).split() if labels.is_file() else []
    for number, (place, line) in enumerate(read_objects(path, text)):
        if number < len(answers):
            line.setdefault("label", answers[number])
        reader = next((reader for keys, reader in LAYOUTS if keys <= line.keys()), None)
        if reader is None:
            raise UsageError(f"{place}: is of no known layout: see edgeq eval --help")
        try:
            yield _checked(reader(line))
        except (TypeError, ValueError, AttributeError, IndexError, KeyError, OverflowError) as error:
            raise UsageError(f"{place}: is not as its layout says: {error}") from error


def _checked(item: Item) -> Item:
    if not all(isinstance(text, str) and text for text in item.choices) or not isinstance(item.prompt, str):
        raise ValueError("prompt and choices must be texts")
    if not 0 <= item.answer < len(item.choices):
        raise ValueError(f"the answer {item.answer} is none of {len(item.choices)}")
    return item


def _choose(line: dict[str, Any]) -> Item:
    if len(line["choices"]) < 2:
        raise ValueError("give two choices or more")
    return Item(line["prompt"], tuple(line["choices"]), int(line["answer"]))


def _go_on(line: dict[str, Any]) -> Item:
    return Item(line["prompt"], (line["target"],))


def _hellaswag(line: dict[str, Any]) -> Item:
    context = line["ctx"]
    if "ctx_a" in line and "ctx_b" in line:
        context = f"{line['ctx_a']} {line['ctx_b'].capitalize()}"
    if "activity_label" in line:
        context = f"{line['activity_label']}: {context}"
    endings = tuple(" " + _plain(ending) for ending in line["endings"])
    return Item(_plain(context), endings, int(line["label"]))


def _plain(text: str) -> str:
    """HellaSwag's text without the marks of its source."""
    lines = text.strip().replace(" [title]", ". ").split("\n")
    return "\n".join(map(_without_marks, lines)).replace("  ", " ")


def _without_marks(line: str) -> str:
    """A line without what is in brackets. In as many steps as it has characters, which an expression would not take."""
    parts, at = [], 0
    while (begin := line.find("[", at)) >= 0 and (end := line.find("]", begin)) >= 0:
        parts.append(line[at:begin])
        at = end + 1
    return "".join((*parts, line[at:]))


def _piqa(line: dict[str, Any]) -> Item:
    choices = tuple(" " + line[key] for key in ("sol1", "sol2"))
    return Item(f"Question: {line['goal']}\nAnswer:", choices, int(line["label"]))


def _lambada(line: dict[str, Any]) -> Item:
    prompt, _, word = line["text"].strip().rpartition(" ")
    return Item(prompt, (" " + word,))


def _hellaswag_text(path: Path, text: str) -> Iterator[Item]:
    lines = text.rstrip("\n").split("\n")
    if len(lines) % HELLASWAG_LINES:
        raise UsageError(f"{path}: has {len(lines)} lines, HellaSwag has {HELLASWAG_LINES} per item")
    for first in range(0, len(lines), HELLASWAG_LINES):
        context, answer, *endings = lines[first : first + HELLASWAG_LINES]
        if answer.strip() not in ("0", "1", "2", "3"):
            raise UsageError(f"{path}:{first + 2}: must be the number of an ending, 0 to 3, not {answer!r:.40}")
        yield Item(context.strip(), tuple(" " + ending.strip() for ending in endings), int(answer))


LAYOUTS: tuple[tuple[set[str], Callable[[dict[str, Any]], Item]], ...] = (
    ({"prompt", "choices", "answer"}, _choose),
    ({"prompt", "target"}, _go_on),
    ({"ctx", "endings", "label"}, _hellaswag),
    ({"goal", "sol1", "sol2", "label"}, _piqa),
    ({"text"}, _lambada),
)
