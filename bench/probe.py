"""What perplexity does not see: answers to 50 small tasks, right by a rule or wrong, of a model and its smaller files.

    python bench/probe.py checkpoint --types F16,Q8_0,Q4_K_M,Q3_K_M,Q2_K [--files mine.eqf]

The prompts are in probe.jsonl: sums, sums in words, facts of one word, and instructions on the form of the answer. Each
is asked in the model's chat template and answered greedily. An answer is right if

  number   the number after its first equals sign is the one, or its last number where it has no such sign
  word     its first sentence has the word, letter case aside
  pattern  the regular expression matches all of it

The first file is the reference. Each other one loses what only the reference gets right, and gains what only it does;
`p` is McNemar's exact two-sided one: how likely at least so uneven a split of the flips is if both are equally good.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path

import script
from machine import results_file
from table_file import Measured, keep_each

import edgeq
from edgeq.errors import UsageError
from edgeq.quantize.recipes import recipe

PROMPTS = Path(__file__).with_name("probe.jsonl")
TYPES = "F16,Q8_0,Q4_K_M,Q3_K_M,Q2_K"
MAX_TOKENS = 64
RULES = ("number", "word", "pattern")
_NUMBER = r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Task:
    """A prompt, and when its answer is right."""

    id: str
    prompt: str
    rule: str
    answer: str

    def right(self, text: str) -> bool:
        text = text.strip()
        if self.rule == "number":
            equals = re.search(rf"=\s*({_NUMBER})", text.replace(",", ""))
            numbers = [equals[1]] if equals else re.findall(_NUMBER, text.replace(",", ""))
            return bool(numbers) and float(numbers[-1]) == float(self.answer)
        if self.rule == "word":
            return self.answer.casefold() in re.findall(r"\w+", re.split(r"[.!?\n]", text)[0].casefold())
        return re.fullmatch(self.answer, text, re.DOTALL) is not None


@dataclass
class Probed(Measured):
    """How one file answered. `lost` and `gained` name tasks; `changed` counts answers of other words than before."""

    KEY = ("model", "file")

    model: str
    file: str
    right: int
    tasks: int
    lost: str
    gained: str
    p: float
    changed: int
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))


def tasks_of(path: Path) -> list[Task]:
    """UsageError for a line that is no task."""
    tasks = []
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            tasks.append(Task(**json.loads(line)))
            if tasks[-1].rule not in RULES:
                raise ValueError
        except (TypeError, ValueError):
            raise UsageError(f"{path}: line {at} needs id, prompt, answer and a rule of {', '.join(RULES)}") from None
    return tasks


def answers(path: Path, tasks: Sequence[Task], threads: int | None) -> list[str]:
    """What a file answers to each task."""
    with edgeq.load(path, threads=threads, context=512) as model:
        return [
            model.chat([{"role": "user", "content": task.prompt}], MAX_TOKENS, temperature=0).text for task in tasks
        ]


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p of so many flips each way."""
    flips = lost + gained
    tail = sum(comb(flips, k) for k in range(min(lost, gained) + 1)) / 2**flips
    return min(1.0, 2 * tail)


def compared(
    model: str, file: str, tasks: Sequence[Task], reference: Sequence[str], found: Sequence[str]
) -> tuple[Probed, list[int]]:
    """The row of a file, and the places of the tasks whose answer flipped."""
    before = [task.right(text) for task, text in zip(tasks, reference, strict=True)]
    after = [task.right(text) for task, text in zip(tasks, found, strict=True)]
    lost = [task.id for task, was, now in zip(tasks, before, after, strict=True) if was > now]
    gained = [task.id for task, was, now in zip(tasks, before, after, strict=True) if was < now]
    changed = sum(one != other for one, other in zip(reference, found, strict=True))
    p = mcnemar(len(lost), len(gained))
    row = Probed(model, file, sum(after), len(tasks), " ".join(lost), " ".join(gained), p, changed)
    return row, [i for i in range(len(tasks)) if before[i] != after[i]]


def files(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of everything to ask, the reference first."""
    for kind in options.types:
        path = folder / f"{kind}.eqf"
        edgeq.convert(options.checkpoint, path, kind)
        yield kind, path
    for path in options.files:
        yield path.name, path


def rows(options: argparse.Namespace, tasks: Sequence[Task]) -> Iterator[Probed]:
    """A row per file, which is told with its flips as soon as it has answered."""
    reference: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(options, Path(folder)):
            found = answers(path, tasks, options.threads)
            reference = reference or found
            row, flipped = compared(options.checkpoint.name, name, tasks, reference, found)
            print(f"\n{name}: {row.right} of {row.tasks} right, {row.changed} answers changed, p {row.p:.2g}")
            for i in flipped:
                verb = "gained" if tasks[i].right(found[i]) else "lost"
                print(f"  {verb} {tasks[i].id}: {tasks[i].prompt}")
                print(f"    {' '.join(reference[i].split())}\n    -> {' '.join(found[i].split())}", flush=True)
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=script.folder)
    parser.add_argument("--types", default=TYPES, help=f"recipes, separated by commas, reference first ({TYPES})")
    parser.add_argument("--files", type=script.file, nargs="+", default=[], help="other files of the same model")
    parser.add_argument("--prompts", type=script.file, default=PROMPTS, help="JSON lines like those of probe.jsonl")
    parser.add_argument("--threads", type=script.count)
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    options = parser.parse_args()
    options.types = options.types.split(",")
    for name in options.types:
        recipe(name)  # UnsupportedError for one that is none
    keep_each(options.results or results_file("probe"), Probed, rows(options, tasks_of(options.prompts)))


if __name__ == "__main__":
    script.run(main)
