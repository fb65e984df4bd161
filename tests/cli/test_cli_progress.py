"""What is shown at a terminal while someone waits; elsewhere nothing is."""

import sys

import pytest

from edgeq.cli.announcer import announce
from edgeq.cli.progress import progress_bar, status


def test_a_line_goes_away_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt), status("first") as say:
        say("second")
        raise KeyboardInterrupt
    assert capsys.readouterr() == ("", "\rfirst\x1b[K\rsecond\x1b[K\r\x1b[K")


def test_a_line_that_is_told_stands_over_the_one_that_moves(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with status("working"):
        announce("a note")
    assert capsys.readouterr().err == "\rworking\x1b[K\r\x1b[Kedgeq: a note\n\r\x1b[K"


def test_what_has_no_size_shows_none(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("reading") as show:
        show("a", 0, 2, 1 << 20, 2 << 20)
        show("measuring", 0, 0, 0, 0)
    last = capsys.readouterr().err.split("measuring")[-1]
    assert "/" not in last and "bytes" not in last


def test_off_a_terminal_there_is_none(capsys: pytest.CaptureFixture[str]):
    with status("first") as say:
        say("second")
    assert capsys.readouterr() == ("", "")


def test_verbs_say_how_far_they_are(edgeq, tiny_model, tmp_path, monkeypatch):
    import edgeq as package

    package.convert(tiny_model, tmp_path / "m.eqf", "F16")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = edgeq("embed", tmp_path / "m.eqf", "a", "b", "-t", 1).err
    assert "\rembedding 2 texts\x1b[K" in err and "\r2 of 2 texts\x1b[K" in err and err.endswith("\r\x1b[K")
    err = edgeq("bench", tmp_path / "m.eqf", "-p", 0, "-n", 2, "-r", 2, "-t", 1).err
    assert "\rtg2: warming up\x1b[K" in err and "\rtg2: run 2 of 2\x1b[K" in err


@pytest.fixture(scope="module")
def converted(tiny_model, tmp_path_factory):
    import edgeq as package

    path = tmp_path_factory.mktemp("converted") / "m.eqf"
    package.convert(tiny_model, path, "F16")
    return path


@pytest.mark.parametrize(
    "verb",
    [
        ("pull", "owner/name"),
        ("show", "owner/name"),
        ("verify", "owner/name"),
        ("export", "owner/name", "-o", "m.gguf"),
        ("doctor", "owner/name", "--no-speed"),
        ("bundle", "owner/name", "--for", "pi5", "-o", "m", "--no-wheels"),
    ],
    ids=lambda verb: verb[0],
)
def test_a_verb_that_makes_a_model_shows_a_bar(edgeq, converted, tmp_path, monkeypatch, verb):
    def runnable(path, announce=None, progress=None):
        announce(f"converting {path} once")
        progress("a tensor", 3 << 20, 12 << 20)
        progress("the last one", 12 << 20, 12 << 20)
        return str(converted)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.store.model_cache.runnable", runnable)
    monkeypatch.setattr("edgeq.cli.bundle.make", lambda *_: 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, _, err = edgeq(*verb)
    assert code == 0, err
    assert "edgeq: converting owner/name once\n" in err
    assert "a tensor" in err and "12.0/12.0 MiB" in err
