import pytest

from edgeq.decode.stops import StopStrings
from edgeq.errors import UsageError


def shown(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    filter = StopStrings(stops)
    texts = [filter.push(piece) for piece in pieces]
    return [*texts, filter.flush()], filter.reached


@pytest.mark.parametrize(
    ("stops", "pieces", "texts", "reached"),
    [
        ([], ["a", "b"], ["a", "b", ""], False),
        (["END"], ["text E", "N", "D more"], ["text ", "", "", ""], True),
        (["END"], ["text E", "N", "O"], ["text ", "", "ENO", ""], False),
        (["END"], ["text EN"], ["text ", "EN"], False),
        (["END"], ["aENDb"], ["a", ""], True),
        (["aab"], ["aa", "ab"], ["", "a", ""], True),
        (["\n\n", "User:"], ["hi\n", "User", ": x"], ["hi", "\n", "", ""], True),
        (["abcd", "bc"], ["ab", "c"], ["", "a", ""], True),
        (["abcd", "bc"], ["abcd"], ["a", ""], True),
        (["x"], ["ax", "b"], ["a", "", ""], True),
    ],
)
def test_stop_strings(stops, pieces, texts, reached):
    assert shown(stops, pieces) == (texts, reached)


def test_where_a_text_ends_does_not_depend_on_its_pieces():
    text = "one two\nthree </s> four"
    for size in range(1, len(text)):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert "".join(shown(["</s>", "\n\n"], pieces)[0]) == "one two\nthree "


def test_an_empty_stop_string_is_refused():
    with pytest.raises(UsageError, match="stop string is empty"):
        StopStrings(["a", ""])
