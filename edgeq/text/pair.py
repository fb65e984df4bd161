"""Two texts as one sequence of tokens, for models that compare them."""

from typing import NamedTuple


class Pair(NamedTuple):
    """Two texts as one sequence: token ids, which of the two each is of (0 or 1), and whether an end was cut off."""

    ids: list[int]
    types: list[int]
    cut: bool


def shared_length(first: int, second: int, most: int) -> tuple[int, int]:
    """How many tokens of two texts are kept, so that they are at most `most` together: the longer one gives way, and
    where both are too long each gets half. Source: the strategy `longest_first` of Hugging Face's tokenizers."""
    if first + second <= most:
        return first, second
    short, most = min(first, second), max(most, 0)
    kept = (short, most - short) if 2 * short <= most else (most // 2, most - most // 2)
    return kept if first <= second else kept[::-1]
