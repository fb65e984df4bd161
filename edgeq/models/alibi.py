"""ALiBi: scores fall with the distance between a token and one that it sees, by another slope for each head
(arXiv:2108.12409)."""


def slopes(heads: int, most: float = 8.0) -> tuple[float, ...]:
    """Of every head: a geometric sequence that ends at 2^-most; where their number is no power of two, the rest is
    from between its values."""
    whole = 1 << (heads.bit_length() - 1)
    first = [2.0 ** (-most * (i + 1) / whole) for i in range(whole)]
    return (*first, *(2.0 ** (-most * (2 * i + 1) / (2 * whole)) for i in range(heads - whole)))
