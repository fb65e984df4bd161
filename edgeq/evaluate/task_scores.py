"""How many items of a task a model gets right, and which ones come out otherwise than with a reference."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp

from edgeq.engine.model import Model
from edgeq.engine.scoring import Continuation
from edgeq.evaluate.statistics import Estimate, mcnemar, mean, share
from edgeq.evaluate.tasks import Item, Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class ItemScore:
    """What a model thinks of an item: each choice's logarithm of probability, and the number that it would choose, by
    the sum and by the sum per character. Of a target the choice is 0 where it is likeliest throughout, else -1."""

    logprobs: tuple[float, ...]
    choice: int
    normalized: int


@dataclass(frozen=True)
class TaskScore:
    """What a model got right.

    accuracy    by the sum of logarithms; of targets how often they are likeliest throughout
    normalized  by the sum per character; None for targets
    perplexity  of targets, per target; None for choices
    """

    name: str
    accuracy: Estimate
    normalized: Estimate | None
    perplexity: Estimate | None
    items: tuple[ItemScore, ...] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)


@dataclass(frozen=True)
class Flips:
    """Items that come out otherwise than with the reference: those that it had right and are `lost`, and those that
    are `gained`, by number; `chance` is that of McNemar's exact test, where neither model is better."""

    lost: tuple[int, ...]
    gained: tuple[int, ...]
    chance: float


def score_task(model: Model, task: Task, say: Say = lambda line: None) -> TaskScore:
    """Score every item."""
    found = []
    for number, item in enumerate(task.items):
        say(f"{task.name}: item {number + 1} of {len(task.items)}")
        found.append(_judge(item, model.score(item.prompt, item.choices)))
    right = tuple(score.choice == item.answer for score, item in zip(found, task.items, strict=True))
    if not task.chooses:
        log = mean([-score.logprobs[0] for score in found])
        perplexity = Estimate(exp(log.value), exp(log.value) * log.error) if log.value < 700 else None
        return TaskScore(task.name, share(right), None, perplexity, tuple(found), right)
    normalized = share([score.normalized == item.answer for score, item in zip(found, task.items, strict=True)])
    return TaskScore(task.name, share(right), normalized, None, tuple(found), right)


def flips(score: TaskScore, reference: TaskScore) -> Flips:
    """What changed from a reference's score of the same task."""
    pairs = list(enumerate(zip(reference.right, score.right, strict=True)))
    lost = tuple(number for number, (before, now) in pairs if before and not now)
    gained = tuple(number for number, (before, now) in pairs if now and not before)
    return Flips(lost, gained, mcnemar(len(lost), len(gained)))


def _judge(item: Item, found: list[Continuation]) -> ItemScore:
    logprobs = tuple(one.logprob for one in found)
    if len(found) == 1:
        choice = 0 if found[0].greedy else -1
        return ItemScore(logprobs, choice, choice)
    per_character = [value / len(text.strip()) for value, text in zip(logprobs, item.choices, strict=True)]
    return ItemScore(logprobs, _largest(logprobs), _largest(per_character))


def _largest(values: tuple[float, ...] | list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
