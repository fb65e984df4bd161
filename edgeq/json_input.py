"""JSON of files that others have made: nothing in it takes more memory or time than its bytes are worth."""

import json
from typing import Any

MOST_VALUES = 1 << 20  # a list of nothing, three bytes, takes a hundred in memory


def parse_json(text: bytes, most: int = MOST_VALUES, **hooks: Any) -> Any:
    """The value that UTF-8 JSON stands for; `hooks` are further arguments of json.loads.

    An integer past 64 bits comes as a float, as other readers take it: one of thousands of digits, or that no float
    can hold, is no number of any use. Raises ValueError for what is no JSON, nests too deep or has more than `most`
    values.
    """
    if sum(map(text.count, (b"[", b"{", b","))) > most:
        raise ValueError(f"it has more than {most} values")
    try:
        return json.loads(text.decode("utf-8"), parse_int=_integer, **hooks)
    except RecursionError:
        raise ValueError("it is too deep") from None


def _integer(digits: str) -> int | float:
    value = int(digits) if len(digits) <= 20 else 1 << 64
    return value if -(1 << 63) <= value < 1 << 64 else float(digits)
