"""Runs the command line within the test's process."""

import io
from collections.abc import Callable
from typing import NamedTuple

import pytest

from edgeq.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def terminal(monkeypatch) -> None:
    """What is shown does not depend on the terminal that the tests run in."""
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def edgeq(capfd, monkeypatch) -> Callable[..., Outcome]:
    """edgeq("run", "m.eqf", stdin="text") -> Outcome."""

    def run(*arguments: object, stdin: str | bytes = "") -> Outcome:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), errors="surrogateescape"))
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run
