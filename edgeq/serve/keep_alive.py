"""How long a model stays that nobody asks, as Ollama's clients say it."""

import math
import re
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)"


def seconds(value: Any) -> float:
    """Seconds of a number of them or of a text like "5m", "1h30m" or "300"; infinite for what is below 0.

    Raises ValueError for what is neither.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        if re.fullmatch(f"(?:{_PART})+", digits):
            size = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, digits))
        elif re.fullmatch(r"[0-9]+(?:\.[0-9]*)?", digits):
            size = float(digits)
        else:
            raise ValueError(value)
        value = -size if text.startswith("-") else size
    if math.isnan(value):
        raise ValueError(value)
    return math.inf if value < 0 else float(value)
