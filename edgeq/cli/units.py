"""Numbers for people."""


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
