"""What a model thinks before it answers, shown apart from the answer: on stderr, dimly on a terminal."""

from collections.abc import Iterable, Iterator

import click

from edgeq.engine.chat_answer import ChatAnswer
from edgeq.talk.said import Text, Thought


def answered(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of an answer; its thoughts are shown as they come."""
    if not isinstance(pieces, ChatAnswer):
        yield from pieces
        return
    thinks = False
    try:
        for part in pieces.parts():
            if isinstance(part, Thought):
                thinks = True
                click.secho(part.text, dim=True, nl=False, err=True)
            elif isinstance(part, Text):
                if thinks:
                    thinks = False
                    click.echo("\n", err=True)
                yield part.text
    finally:
        if thinks:
            click.echo(err=True)
