"""Allocation: within the bytes, no worse than what trying everything finds, up to the last step that does not fit."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.quantize.allocation import Candidate, allocate, hull

CANDIDATES = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0, 10, allow_nan=False, width=32)), min_size=1, max_size=4
).map(lambda pairs: [Candidate(f"T{i}", nbytes, loss) for i, (nbytes, loss) in enumerate(pairs)])
MATRICES = st.lists(CANDIDATES, min_size=1, max_size=4).map(lambda rows: {f"m{i}": row for i, row in enumerate(rows)})


@settings(max_examples=200, deadline=None)
@given(MATRICES, st.integers(0, 250))
def test_no_other_choice_within_the_bytes_is_much_better(matrices: dict[str, list[Candidate]], nbytes: int) -> None:
    chosen = allocate(matrices, nbytes)
    size, loss = sum(c.nbytes for c in chosen.values()), sum(c.loss for c in chosen.values())
    least = sum(min(c.nbytes for c in row) for row in matrices.values())
    assert size <= max(nbytes, least)
    if nbytes < least:
        return
    within = [combo for combo in product(*matrices.values()) if sum(c.nbytes for c in combo) <= nbytes]
    best = min(sum(c.loss for c in combo) for combo in within)
    # the greedy choice is the optimum but for one step that did not fit
    steps = [a.loss - b.loss for row in matrices.values() for a, b in pairwise(hull(row))]
    longest = max(steps, default=0.0)
    assert loss <= best + longest + 1e-6


@settings(max_examples=100, deadline=None)
@given(MATRICES, st.integers(0, 120), st.integers(0, 120))
def test_more_bytes_lose_no_more(matrices: dict[str, list[Candidate]], nbytes: int, more: int) -> None:
    longest = max(c.nbytes for row in matrices.values() for c in row)
    few, many = (sum(c.loss for c in allocate(matrices, n).values()) for n in (nbytes, nbytes + more + longest))
    assert many <= few + 1e-6


def test_a_loss_that_is_allowed_is_kept_with_few_bytes() -> None:
    row = [Candidate("small", 10, 1.0), Candidate("middle", 20, 0.25), Candidate("large", 40, 0.0)]
    matrices = {"a": row, "b": [Candidate(c.type, c.nbytes, 4 * c.loss) for c in row]}
    assert {n: c.type for n, c in allocate(matrices, loss=2.0).items()} == {"a": "small", "b": "middle"}
    assert {n: c.type for n, c in allocate(matrices, loss=0.0).items()} == {"a": "large", "b": "large"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", 1, 5.0), ("b", 2, 6.0)], "a"),
        ([("a", 1, 9.0), ("b", 2, 8.5), ("c", 3, 1.0)], "ac"),
        ([("a", 1, 9.0), ("b", 2, 2.0), ("c", 3, 1.0)], "abc"),
    ],
)
def test_what_is_never_worth_having_is_left_out(given: list[tuple[str, int, float]], expected: str) -> None:
    assert "".join(c.type for c in hull([Candidate(*one) for one in given])) == expected
