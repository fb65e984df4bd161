"""What a model said, in the order in which it became known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A part of the answer."""

    text: str


@dataclass(frozen=True)
class Thought:
    """A part of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A tool is called, the `index`-th of this answer. `id` is what the model calls that, if it does."""

    index: int
    name: str
    id: str = ""


@dataclass(frozen=True)
class CallArguments:
    """A part of the arguments of a call, as JSON."""

    index: int
    text: str


Said = Text | Thought | CallBegun | CallArguments
