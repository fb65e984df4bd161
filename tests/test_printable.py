"""What files say reaches a terminal as plain text, and errors are one line that is not long."""

import json
from pathlib import Path

import pytest

from edgeq import errors
from edgeq.cli.json_output import show_json
from edgeq.printable import printable

STEERS = "\x1b[2J\x07\x9b31m\u202e\u2028\r\n\t\0\ud800"


def test_nothing_steers_a_terminal():
    assert printable(f"a{STEERS}b é 漢字 🙂").isprintable()
    assert printable("two\r\n\tlines  ") == "two lines "
    assert printable("two  blanks stay") == "two  blanks stay"


def test_the_middle_of_what_is_long_is_left_out():
    line = printable("begin " + "x" * 10_000_000 + " end", 100)
    assert len(line) <= 100 and line.startswith("begin xx") and line.endswith("xx end") and " ... " in line


def of_errors(kind: type) -> list[type]:
    return [kind, *(one for sub in kind.__subclasses__() for one in of_errors(sub))]


@pytest.mark.parametrize("kind", of_errors(errors.EdgeqError), ids=lambda kind: kind.__name__)
def test_every_error_is_one_printable_line_below_1_kb(kind: type):
    error = kind(f"/a/file: {STEERS}" + "é" * 100_000 + ": do this")
    text = str(error)
    assert text.isprintable() and len(text.encode()) <= errors.LONGEST and text.endswith(": do this")
    assert str(kind("/a/file: is  wrong")) == "/a/file: is  wrong"


def test_json_spells_what_steers_a_terminal(capsys: pytest.CaptureFixture[str]):
    show_json({"a": STEERS.replace("\ud800", "") + "é\U000e0001"})
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "é" in out
    assert json.loads(out)["a"] == STEERS.replace("\ud800", "") + "é\U000e0001"


def test_show_prints_a_files_strings_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from edgeq.cli import main
    from edgeq.container.writer import TensorSpec, Writer

    metadata = {
        "architecture": f"llama{STEERS}",
        "config": {"vocab_size": STEERS},
        "provenance": {f"k{STEERS}": STEERS},
    }
    with Writer(tmp_path / "m.eqf", [TensorSpec("t", (16,), "F32")], metadata, {}) as writer:
        writer.write("t", bytes(64))
    assert main(["show", str(tmp_path / "m.eqf")]) == 0
    assert main(["show", str(tmp_path / "m.eqf"), "--json"]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()
