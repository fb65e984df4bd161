"""What the steps from logits to a token have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.decode.option import Option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.decode.candidates import Candidates


@dataclass(frozen=True)
class Text:
    """What steps may know of the text that they go on.

    prompt_tokens  how many of its tokens were given
    vocab          how many tokens there are, if that is known
    piece_bytes    the bytes that a token stands for, where there is a tokenizer
    """

    prompt_tokens: int = 0
    vocab: int | None = None
    piece_bytes: Callable[[int], bytes] | None = None


class Step:
    """What all steps are: made of the values of all options, of which each takes its own."""

    def __init__(self, values: Mapping[str, Any], text: Text) -> None:
        self.text = text
        for option in self.options():
            vars(self)[option.name] = values[option.name]

    @classmethod
    def options(cls) -> list[Option[Any]]:
        """Those that the class describes, and those that it shares with others."""
        return [value for base in cls.__mro__ for value in vars(base).values() if isinstance(value, Option)]


class Processor(Step):
    """Changes logits; also where the likeliest token is taken."""

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Logits f32[vocab], another array where any is changed; `recent` are the ids before, the latest last."""
        raise NotImplementedError


class Filter(Step):
    """Leaves fewer candidates, at least one; only where a token is drawn."""

    def filter(self, candidates: "Candidates") -> "Candidates":
        """Those that are left."""
        raise NotImplementedError
