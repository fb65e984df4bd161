"""What files, servers and people say, made fit for a terminal: nothing in it moves a cursor or turns text around."""

import re

_SPACE = re.compile(r"\s+")


def printable(text: object, most: int | None = None) -> str:
    """`text` as one line: white space becomes a blank, any other character that is not printable a question mark in a
    box. Of what has more than `most` characters the middle is left out."""
    line = str(text)
    if most is not None and len(line) > 4 * most:  # what is megabytes long need not be looked through
        line = f"{line[: 2 * most]} {line[-2 * most :]}"
    if not line.isprintable():
        line = "".join(
            character if character.isprintable() else " " if character.isspace() else "\ufffd" for character in line
        )
        line = _SPACE.sub(" ", line)
    if most is not None and len(line) > most:
        end = most // 3
        line = f"{line[: most - end - 5]} ... {line[-end:]}"
    return line
