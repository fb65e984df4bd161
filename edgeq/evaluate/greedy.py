"""Answers without chance: where a model's first differ from a reference's, and how long each token takes."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

from edgeq.engine.model import Model
from edgeq.errors import UsageError
from edgeq.evaluate.statistics import percentiles
from edgeq.evaluate.texts import Chunk, read_objects
from edgeq.system.input import read_text

PROMPT = 32  # tokens of a prompt that is the beginning of a text
WARM = 2  # tokens of an answer that tell nothing of the others' time: the prompt's, and the first after it

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prompt:
    """What is answered: `ids`, and how it reads."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Greedy:
    """A model's answer to a prompt: the likeliest token each time. `seconds` are those of each token but the first
    ones."""

    tokens: tuple[int, ...]
    text: str
    seconds: tuple[float, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class Change:
    """A prompt's two answers. `agree` counts the tokens before the first that differs, `alike` is the share of both
    that they have in common, in order: 1 where they are the same."""

    prompt: str
    reference: str
    answer: str
    agree: int
    alike: float

    @property
    def same(self) -> bool:
        return self.alike == 1.0


def latency(answers: Sequence[Greedy]) -> dict[str, float]:
    """Percentiles 50, 95 and 99 of a token's seconds."""
    return percentiles([one for answer in answers for one in answer.seconds], (50, 95, 99))


def read_prompts(path: Path, model: Model) -> list[Prompt]:
    """The prompts of a file: a `.jsonl` file's objects with "prompt", or else lines. They are asked in a chat where the
    model has a chat template. Raises UsageError where there are none."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        texts = []
        for place, line in read_objects(path, text):
            if not isinstance(line.get("prompt"), str):
                raise UsageError(f'{place}: has no "prompt": give objects like {json.dumps({"prompt": "..."})}')
            texts.append(line["prompt"])
    else:
        texts = [line for line in text.split("\n") if line.strip()]
    if not texts:
        raise UsageError(f"{path}: holds no prompt: give one per line")
    if model.has_chat_template:
        return [Prompt(tuple(model.chat_tokens([{"role": "user", "content": one}])), one) for one in texts]
    return [Prompt(tuple(model.tokenizer.encode(one)), one) for one in texts]


def beginnings(chunks: Sequence[Chunk], model: Model, count: int) -> list[Prompt]:
    """The first tokens of `count` chunks, taken from all over the text."""
    step = max(1, len(chunks) // max(count, 1))
    ids = [chunk.ids[: min(PROMPT, len(chunk.ids) // 2)] for chunk in chunks[::step][:count]]
    return [Prompt(part, model.tokenizer.decode(part)) for part in ids]


def answer(model: Model, prompts: Sequence[Prompt], tokens: int, say: Say = lambda line: None) -> list[Greedy]:
    """Each prompt's answer, of at most so many tokens."""
    answers = []
    for number, prompt in enumerate(prompts):
        say(f"answer {number + 1} of {len(prompts)}")
        generated = model.generate_tokens(prompt.ids, tokens, temperature=0.0, repetition_penalty=1.0)
        clock = [time.perf_counter()]
        clock += [time.perf_counter() for _ in generated]
        seconds = [after - before for before, after in pairwise(clock)]
        answers.append(Greedy(tuple(generated.tokens), model.tokenizer.decode(generated.tokens), tuple(seconds[WARM:])))
    return answers


def changes(prompts: Sequence[Prompt], reference: Sequence[Greedy], found: Sequence[Greedy]) -> list[Change]:
    """Each prompt's two answers, those that changed most first."""
    result = []
    for prompt, before, now in zip(prompts, reference, found, strict=True):
        agree = next(
            (i for i, (a, b) in enumerate(zip(before.tokens, now.tokens, strict=False)) if a != b),
            min(len(before.tokens), len(now.tokens)),
        )
        alike = SequenceMatcher(None, before.tokens, now.tokens, autojunk=False).ratio()
        result.append(Change(prompt.text, before.text, now.text, agree, alike))
    return sorted(result, key=lambda change: (change.alike, change.agree))
