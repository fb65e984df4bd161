import numpy as np
import pytest
from counting import counting_model

from edgeq.errors import ContextError, UsageError

LIKELY = float(9 - np.log(np.exp(9) + 269))


def test_continuations_of_a_text():
    model = counting_model()
    likely, other, single = model.score("ab", ["cde", "cxy", "c"])
    assert likely.tokens == (*b"cde",) and likely.greedy
    assert likely.logprobs == pytest.approx([LIKELY] * 3) and likely.logprob == pytest.approx(3 * LIKELY)
    assert other.logprobs == pytest.approx([LIKELY, LIKELY - 9, LIKELY]) and not other.greedy
    assert single.tokens == (ord("c"),) and single.greedy
    assert model.session.evaluated == [*b"ab", *b"cd", *b"cx"], "the text once, and no last token for nothing"


def test_what_texts_have_in_common_is_computed_once():
    model = counting_model()
    model.score("abcd", ["e"])
    model.session.evaluated.clear()
    model.score("abcx", ["yz", "q"])
    assert model.session.evaluated == [*b"xy"]


def test_token_ids():
    model = counting_model()
    assert [one.greedy for one in model.score([5, 6], [[7, 8], [9]])] == [True, False]
    assert model.score([5, 6], []) == []


def test_scores_are_those_of_the_whole_text():
    model = counting_model(context=200, jumps={7: 3})
    ids = [5, 6, 7, *range(8, 150)]
    (found,) = model.score(ids[:3], [ids[3:]])
    np.testing.assert_allclose(found.logprobs, model.score(ids)[2:], rtol=1e-6)


def test_a_space_at_the_end_belongs_to_what_follows():
    model = counting_model()
    (found,) = model.score("ab ", ["c"])
    assert found.tokens == (*b" c",)


@pytest.mark.parametrize(
    ("text", "continuations", "message"),
    [
        ("a", "bc", "continuations must be a list of texts"),
        ("a", 5, "continuations must be a list of texts"),
        ("a", [[1]], "texts, token ids with token ids"),
        ([1], ["a"], "texts, token ids with token ids"),
        ("a", ["b", ""], "the continuation '' has no tokens"),
        ("", ["a"], "the prompt is empty"),
        ([1], [[300]], "token 300 is not in the model's vocabulary"),
        ([1], [[300, 5]], "token 300 is not in the model's vocabulary"),
    ],
)
def test_mistakes(text, continuations, message):
    with pytest.raises(UsageError, match=message):
        counting_model().score(text, continuations)


def test_a_context_that_is_too_small():
    model = counting_model(context=4)
    assert len(model.score("ab", ["cde"])) == 1
    with pytest.raises(ContextError):
        model.score("ab", ["cdef"])


def test_logits_part_by_part():
    model = counting_model(context=64)
    ids = [*range(40, 90)]
    parts = list(model.iter_logits(ids, 25))
    assert [len(part) for part in parts] == [16, 9]
    np.testing.assert_array_equal(np.concatenate(parts), model.logits(ids)[25:])
    first, *_ = model.iter_logits(ids[:3])
    assert len(first) == 3


def test_other_calls_come_between_parts():
    model = counting_model(context=64)
    ids = [*range(40, 90)]
    found = []
    for part in model.iter_logits(ids, 8):
        found.append(part)
        model.score("xy", ["z"])
    np.testing.assert_array_equal(np.concatenate(found), model.logits(ids)[8:])
