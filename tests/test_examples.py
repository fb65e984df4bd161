"""The programs of tools/examples run, with the bundled model."""

import io
import runpy
from pathlib import Path

import pytest

import edgeq

EXAMPLES = Path(__file__).resolve().parents[1] / "tools" / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model):
    path = tmp_path_factory.mktemp("examples") / "tiny.eqf"
    edgeq.convert(tiny_model, path, "Q8_0")
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """run("chat_loop", arguments, stdin="text") -> what it printed."""

    def run(name: str, *arguments: object, stdin: str = "") -> str:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_chat_loop_answers_each_line(run, model):
    out = run("chat_loop", model, stdin="Tell me a story about a dog.\nAnd one about a cat.\n\nnot read\n")
    turns = out.split("> ")
    assert len(turns) == 4 and turns[3] == ""
    assert all(len(turn.split()) > 10 for turn in turns[1:3])


def test_streaming_ends_after_three_sentences(run, model):
    out = run("streaming", model, "Once upon a time")
    text, figures = out.rstrip().rsplit("\n\n", 1)
    assert text.startswith("Once upon a time")
    assert sum(text.count(mark) for mark in ".!?") == 3 or figures.startswith("200 tokens")
    assert int(figures.split()[0]) < 200


def test_tools_end_with_an_answer(run, model):
    assert len(run("tools", model, "Tell me a story.").split()) > 5


def test_search_finds_the_same_line_first(run, model, tmp_path):
    lines = ["The dog ran in the park.", "A boy ate red apples.", "It rained all day long.", "Mom read a book."]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    found = run("search", model, tmp_path / "lines.txt", lines[2]).splitlines()
    assert len(found) == 3 and found[0] == f"1.000  {lines[2]}"
    assert [line.split()[0] for line in found] == sorted((line.split()[0] for line in found), reverse=True)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_mistakes_are_one_line(run, path, tmp_path):
    with pytest.raises(SystemExit, match="python tools/examples/"):
        run(path.stem)
    (tmp_path / "x.eqf").write_bytes(b"nothing")
    count = {"chat_loop": 0, "streaming": 1, "search": 2, "tools": 1}[path.stem]
    with pytest.raises(SystemExit, match=f"{path.stem}: .*x.eqf"):
        run(path.stem, tmp_path / "x.eqf", *[str(tmp_path / "x.eqf")] * count)
