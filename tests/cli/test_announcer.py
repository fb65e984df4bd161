"""What is told while someone waits."""

import io
import itertools
import threading
import time

import pytest

from edgeq.cli import announcer
from edgeq.cli.announcer import Announcer
from edgeq.cli.progress import status


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[str]:
    """What has stood in the terminal's line, one after the other."""
    return [text.removesuffix("\x1b[K") for text in stream.getvalue().split("\r")[1:]]


def test_the_line_at_a_terminal_moves_while_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr(announcer, "TICK", 0.001)
    monkeypatch.setattr(announcer.time, "monotonic", itertools.count(100).__next__)
    announce = Announcer()
    announce.progress(0, 11)
    while len(lines(terminal)) < 4:
        assert len(threading.enumerate()) > 1
        time.sleep(0.001)
    assert lines(terminal)[:3] == [f"edgeq: 0 of 11 compiled, {seconds} s" for seconds in (1, 2, 3)]
    announce.progress(1, 11)
    assert any(line.startswith("edgeq: 1 of 11 compiled, ") for line in lines(terminal))
    announce.progress(11, 11)
    shown = lines(terminal)
    assert shown[-1] == "" and not [one for one in threading.enumerate() if one.name == "edgeq-announcer"]
    announce.progress(11, 11)
    assert lines(terminal) == [*shown, ""]


def test_a_dumb_terminal_gets_no_escape_codes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    Announcer().progress(0, 11)
    Announcer().progress(11, 11)
    with status("reading"):
        pass
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("long", [True, False])
def test_elsewhere_a_long_work_is_told_by_quarters(capsys: pytest.CaptureFixture[str], long: bool):
    announce = Announcer(long)
    announce("compiling")
    for _ in range(2):
        for done in range(10):
            announce.progress(done, 9)
    told = [f"edgeq: {done} of 9 compiled\n" for done in (3, 5, 7)] * 2 if long else []
    assert capsys.readouterr().err == "".join(["edgeq: compiling\n", *told])
