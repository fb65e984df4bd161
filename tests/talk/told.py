"""What a parser tells of a text, however it is cut."""

from collections.abc import Callable, Sequence

from edgeq.talk.parser import Parser, joined
from edgeq.talk.said import Said


def told(parser: Parser, parts: Sequence[str]) -> list[Said]:
    said = [one for part in parts for one in parser.push(part)]
    return joined([*said, *parser.end()])


def told_however_cut(make: Callable[[], Parser], text: str, step: int = 1) -> list[Said]:
    """What is told of a text: the same of the whole, of its characters, and of two parts cut at every `step`-th."""
    whole = told(make(), [text])
    assert told(make(), list(text)) == whole
    for cut in range(1, len(text), step):
        assert told(make(), [text[:cut], text[cut:]]) == whole, cut
    return whole
