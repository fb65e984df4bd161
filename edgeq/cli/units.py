"""Numbers for people, and from them."""

import re

from edgeq.errors import UsageError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def size(text: str) -> float:
    """Bytes of `700MB` or `1.5GiB`. UsageError for what is no size."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMG]?I?B?)", text.upper())
    unit = found[2] if found else ""
    unit = unit if unit.endswith("B") or not unit else f"{unit}B"
    if found is None or unit not in UNITS:
        raise UsageError(f"{text!r} is no size: give one as 700MB or 1.5GiB")
    return float(found[1]) * UNITS[unit]


def binary_size(nbytes: int) -> str:
    """Bytes with a binary unit: 1536 -> "1.50 KiB"."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{nbytes} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def count(number: int) -> str:
    """A count with a decimal unit: 1_540_000 -> "1.54 M"."""
    for unit, scale in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)
