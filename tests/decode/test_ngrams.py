from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.decode.ngrams import LATEST, LONGEST, Lookup


def guessed(text, count=4):
    tokens, same = Lookup().guess([*text.encode()], count)
    return bytes(tokens).decode(), same


def test_the_longest_match_is_followed():
    assert guessed("xabcd yabce xab") == ("cd y", 3)
    assert guessed("xabcd yabce ab") == ("ce a", 2), "of two the later"
    assert guessed("abcd" * 9) == ("abcd", LONGEST)
    assert guessed("abcd") == guessed("a") == guessed("") == ("", 0)


def test_guesses_go_round_where_the_text_ends():
    assert guessed("ab ab ab", 8) == (" ab ab a", 5)
    assert guessed("aaa", 3) == ("aaa", 2)


def test_a_text_that_grows():
    """One that is asked from time to time says what one that reads all at once does."""
    text, growing = [*(b"the cat and the dog and the cat and then" * 3)], Lookup()
    for end in range(len(text) + 1):
        if end % 3 == 0:
            assert growing.guess(text[:end], 5) == Lookup().guess(text[:end], 5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 9))
def test_what_is_guessed_was_there(tokens, count):
    found, same = Lookup().guess(tokens, count)
    assert len(found) == (count if same else 0)
    if same:
        end = tokens[len(tokens) - same :]
        long = [*tokens, *found]
        places = [at for at in range(len(tokens) - same) if tokens[at : at + same] == end]
        assert any(long[at + same : at + same + count] == found for at in places)
        every = [at for at in range(1, len(tokens) - 1) if tokens[at - 1 : at + 1] == tokens[-2:]]
        if len(every) <= LATEST and same < LONGEST:
            longer = tokens[len(tokens) - same - 1 :]
            assert all(tokens[at : at + same + 1] != longer for at in range(len(tokens) - same - 1))
