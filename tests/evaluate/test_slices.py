"""A part of the text that is made to fail is named."""

from math import comb

import pytest
from random_models import table_model

from edgeq.evaluate.measure import chunks_for, measure
from edgeq.evaluate.slices import slices
from edgeq.evaluate.texts import Passage

LOWER = "".join(chr(97 + i * i % 26) for i in range(64))
UPPER = LOWER.upper()
ALPHABET = "".join(map(chr, range(65, 91)))


def found(model, repeats=4):
    passages = [Passage(LOWER[i:] + LOWER[:i], "t", ("case=lower", "length=short")) for i in range(2 * repeats)]
    passages += [Passage(UPPER[i:] + UPPER[:i], "t", ("case=upper", "length=short")) for i in range(repeats)]
    passages += [Passage("0123456789" * 6, "t", ("case=none", "length=long"))] * repeats
    chunks = chunks_for([model], passages, 64)
    return slices(chunks, measure([model], chunks, table_model())[0])


def test_what_was_made_to_fail_is_named():
    worst, *rest = found(table_model(worse=ALPHABET, noise=0.05))
    assert worst.name == "case=upper" and worst.significant
    assert worst.chance == pytest.approx(5 / comb(16, 4)), "the least that 16 chunks allow, corrected for five slices"
    assert worst.loss.kl.value > 3 * max(one.loss.kl.value for one in rest if one.name != "length=short")
    assert not any(one.significant for one in rest)


def test_a_small_slice_proves_little():
    """One chunk among few can always be the worst by chance."""
    passages = [Passage(LOWER[i:] + LOWER[:i], "t", ("lower",)) for i in range(3)] + [Passage(UPPER, "t", ("upper",))]
    model = table_model(worse=ALPHABET)
    chunks = chunks_for([model], passages, 64)
    worst, _ = slices(chunks, measure([model], chunks, table_model())[0])
    assert worst.name == "upper" and worst.chance == pytest.approx(2 / 4) and not worst.significant
    assert not worst.decidable


def test_slices_have_their_own_numbers():
    model = table_model(noise=0.3)
    chunks = chunks_for([model], [Passage(LOWER, "t", ("a",)), Passage(UPPER, "t", ("b", "c"))], 64)
    positions = measure([model], chunks, table_model())[0]
    by_name = {one.name: one.loss for one in slices(chunks, positions)}
    assert by_name["a"].kl.value == pytest.approx(positions.select().kl[:31].mean())
    assert by_name["b"] == by_name["c"] and by_name["b"].positions == 31


def test_a_text_of_one_slice_has_none():
    chunks = chunks_for([table_model()], [Passage(LOWER, "t", ("a",))], 64)
    assert slices(chunks, measure([table_model()], chunks)[0]) == []


def test_without_a_reference_the_largest_perplexity_comes_first():
    chunks = chunks_for([table_model()], [Passage(LOWER, "t", ("a",)), Passage(UPPER, "t", ("b",))], 64)
    first, second = slices(chunks, measure([table_model()], chunks)[0])
    assert first.loss.perplexity.value > second.loss.perplexity.value and first.chance is None
