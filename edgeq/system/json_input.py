"""JSON of files that others have made: nothing in it takes more memory or time than its bytes are worth."""

import json
import math
import sys
from typing import Any

MOST_VALUES = 1 << 20  # a list of nothing, three bytes, takes a hundred in memory


def parse_json(text: bytes, most: int = MOST_VALUES, **hooks: Any) -> Any:
    """The value that UTF-8 JSON stands for; `hooks` are further arguments of json.loads.

    An integer past 64 bits comes as a float, as other readers take it: one of thousands of digits, or that no float
    can hold, is no number of any use, and the largest float says as much. Raises ValueError for what is no JSON, nests
    too deep or has more than `most` values.
    """
    if sum(map(text.count, (b"[", b"{", b","))) > most:
        raise ValueError(f"it has more than {most} values")
    try:
        return json.loads(text.decode("utf-8"), parse_int=_integer, **hooks)
    except RecursionError:
        raise ValueError("it is too deep") from None


def named_float(text: str) -> float | dict[str, str]:
    """A number, or what transformers writes for one that JSON has not: {"__float__": "Infinity"}. A hook for
    `parse_float` and `parse_constant`, for what is to be written again."""
    value = float(text)
    if math.isfinite(value):
        return value
    return {"__float__": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _integer(digits: str) -> int | float:
    value = int(digits) if len(digits) <= 20 else 1 << 64
    if -(1 << 63) <= value < 1 << 64:
        return value
    return max(-sys.float_info.max, min(float(digits), sys.float_info.max))
