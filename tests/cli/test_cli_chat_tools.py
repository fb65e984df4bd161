"""`edgeq chat --tools`: functions of a file that the model calls."""

import json
import re

import pytest

pytest.importorskip("llguidance", reason="pip install llguidance")
from scripted import TOOLS, scripted_model

from edgeq.cli.chat import Chat
from edgeq.cli.chat_conversation import Conversation, load
from edgeq.cli.chat_input import Piped
from edgeq.cli.chat_tools import REFUSED, ROUNDS, Tools, read_tools
from edgeq.errors import UsageError

FUNCTIONS = '''
"""Tools for tests."""
import datetime
from dataclasses import dataclass

def area(width: float, height: float = 1.0) -> float:
    """The area of a rectangle."""
    print("noise")
    return width * height

def day(when: datetime.date) -> dict:
    """The day of the week."""
    return {"day": f"{when:%A}"}

async def fails(text: str) -> str:
    """Does not work."""
    raise ValueError(text)

def large() -> str:
    """Says a lot."""
    return "x" * 5000

def names() -> list[str]:
    """Names of files, one of which is no text."""
    return ["a", "\\udcff"]

def _private(x): ...
'''


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def answering(*scripts: str, context: int = 4000):
    """A model that says the first script, and after each tool's result the next one."""
    model = scripted_model(scripts[0], TOOLS, context=context)
    session = model.session
    real = session.logits_after

    def logits_after(tokens):
        text = b"".join(session.pieces.get(token) or bytes([token]) for token in tokens)
        session.script = scripts[min(text.count(b"|tool:"), len(scripts) - 1)].encode()
        return real(tokens)

    session.logits_after = logits_after
    return model


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def chat(edgeq, monkeypatch, file):
    """chat(*scripts, stdin=...) -> the outcome of a chat that may call the file's functions."""

    def run(*scripts, stdin="So?\n", options=("--yes",)):
        monkeypatch.setattr("edgeq.loading.load", lambda path, **given: answering(*scripts))
        return edgeq("chat", "m.eqf", "--tools", file, "--temperature", 0, *options, stdin=stdin)

    return run


def test_a_call_and_its_result(chat, tmp_path):
    saved = tmp_path / "talk.json"
    outcome = chat(f"Let us see.{call('area', width=3, height=4)}", "It is 12.", stdin=f"So?\n/save {saved}\n")
    assert (outcome.code, outcome.out) == (0, "Let us see.\nIt is 12.\n")
    assert outcome.err.splitlines()[:2] == ["noise", "area(width=3, height=4) -> 12.0"]
    asked, called, said, answer = json.loads(saved.read_text())
    assert (asked["content"], answer["content"]) == ("So?", "It is 12.")
    assert called["tool_calls"][0]["id"] == said["tool_call_id"] and said["content"] == "12.0"
    system, messages = load(saved)
    assert system is None and messages == [asked, called, said, answer], "it can be gone on with"


def test_arguments_are_of_the_types_that_the_function_names(chat):
    assert 'day(when="2024-02-29") -> {"day": "Thursday"}\n' in chat(call("day", when="2024-02-29"), "So be it.").err


def test_what_fails_is_told_to_the_model(chat, tmp_path):
    saved = tmp_path / "talk.json"
    outcome = chat(call("fails", text="why\nnot"), call("large"), "Sorry.", stdin=f"So?\n/save {saved}\n")
    assert outcome.out == "Sorry.\n" and outcome.code == 0
    lines = ['fails(text="why\\nnot") failed: ValueError: why not']
    lines += ["large() failed: the result is too long (5000 characters): ask for less"]
    assert outcome.err.splitlines()[:2] == lines
    said = [message["content"] for message in json.loads(saved.read_text()) if message["role"] == "tool"]
    assert said == ["error: ValueError: why\nnot", "error: the result is too long (5000 characters): ask for less"]


def test_what_is_no_text_is_told_and_saved_as_one(chat, tmp_path):
    saved = tmp_path / "talk.json"
    outcome = chat(call("names"), "So be it.", stdin=f"So?\n/save {saved}\n")
    assert (outcome.code, outcome.out) == (0, "So be it.\n")
    _, messages = load(saved)
    assert messages[2]["content"] == '["a", "?"]'


def test_rounds_are_bounded(chat):
    outcome = chat(call("area", width=1))
    assert outcome.err.count("area(width=1) -> 1.0") == ROUNDS
    assert f"(after {ROUNDS} rounds of calls the model must answer without)" in outcome.err and outcome.code == 0


class Asking(Piped):
    """Someone who answers questions so, and notes them."""

    interactive = True

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def ask(self, question):
        self.asked.append(question)
        reply = self.replies.pop(0)
        if isinstance(reply, type):
            raise reply
        return reply


def talk(file, replies, *scripts, messages=("So?",)) -> tuple[Conversation, Asking]:
    reader = Asking(*replies)
    left = list(messages)
    reader.read = lambda: left.pop(0) if left else None
    tools = Tools(read_tools([file]), reader.ask)
    chat = Chat(answering(*scripts), None, {"temperature": 0.0}, False, reader, tools=tools)
    chat.go_on()
    return chat.talk.conversation, reader


AREA = call("area", width=2)


def test_each_call_is_asked_for(file, capsys):
    conversation, reader = talk(file, ["y", "", "yes"], AREA, AREA, call("area", width=5), "Done.")
    assert reader.asked == [f"area(width={n}): run it? [y]es, [N]o, [a]lways this one: " for n in (2, 2, 5)]
    said = [message["content"] for message in conversation.messages if message["role"] == "tool"]
    assert said == ["2.0", REFUSED, "5.0"]
    out, err = capsys.readouterr()
    assert out == "Done.\n" and err.count("not allowed") == 1


def test_a_tool_is_allowed_for_good(file):
    _, reader = talk(file, ["a", "n"], AREA, AREA, call("day", when="2024-01-01"), "Done.")
    assert [question.partition("(")[0] for question in reader.asked] == ["area", "day"]


def test_arguments_are_shown_whole_and_fit_for_a_terminal(file):
    _, reader = talk(file, ["n"], call("fails", text="\x1b[2J\u202e" + "x" * 900), "Done.")
    assert reader.asked[0].isprintable() and "x" * 900 in reader.asked[0]


def test_ctrl_c_at_a_question_ends_the_turn(file, capsys):
    conversation, _ = talk(file, [KeyboardInterrupt], AREA, "Done.")
    assert conversation.messages == [] and "stopped before an answer" in capsys.readouterr().err
    conversation, _ = talk(file, ["y", KeyboardInterrupt], AREA, AREA, "Done.")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]


def test_turns_with_calls_are_gone_on_with(file):
    conversation, _ = talk(file, ["y", "y"], AREA, "Done.", messages=("So?", "/regen", "And?", "/tools", "/edit x"))
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert conversation.latest == "x"


def test_the_oldest_turns_make_room_whole(file):
    model = answering(AREA, "Done.", context=1000)
    conversation = Conversation(model)
    called = [
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "tool", "content": "x" * 100, "tool_call_id": "1"},
    ]
    for i in range(6):
        conversation.keep(str(i), "y", called=called)
    messages = conversation.prompt("so?", called=called)
    assert messages[0]["role"] == "user" and conversation.dropped > 0 and conversation.dropped % 4 == 0
    assert messages[-3]["content"] == "so?"


def test_commands_of_tools(chat, edgeq, monkeypatch):
    assert (
        "area(width: float, height: float = 1.0) -> float: The area of a rectangle." in chat("x", stdin="/tools\n").err
    )
    monkeypatch.setattr("edgeq.loading.load", lambda path, **given: answering("x"))
    assert "there are no tools: start with --tools FILE.py" in edgeq("chat", "m.eqf", stdin="/tools\n").err


@pytest.mark.parametrize(("options", "fault"), [((), "--tools asks before each call, and stdin is no terminal: --yes")])
def test_nobody_to_ask(chat, options, fault):
    outcome = chat("x", options=options)
    assert outcome.code == 2 and outcome.err.startswith(f"edgeq: {fault}") and outcome.out == ""


def test_what_calls_need_is_missed_at_once(chat, monkeypatch):
    monkeypatch.setattr("edgeq.talk.grammar.find_spec", lambda name: None)
    outcome = chat("x")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "edgeq: --tools is not supported: llguidance is missing (pip install 'edgeq[serve]')\n"


def test_yes_without_tools(edgeq):
    outcome = edgeq("chat", "m.eqf", "--yes")
    assert outcome.code == 2 and outcome.err.startswith("edgeq: --yes says that tools may run without asking")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"\xff", "is not UTF-8 text"),
        (b"def f(:", "line 1: invalid syntax"),
        (b"\n\n1 / 0", "line 3: ZeroDivisionError: division by zero"),
        (b"import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named"),
        (b"raise SystemExit(3)", "line 1: SystemExit: 3"),
        (b"", "has no public function: write one with type hints and a docstring"),
        (b"from json import dumps\ndef _f(): ...", "has no public function"),
        (b"def f(): ...", "f has no docstring: say what it is for, or begin its name with _"),
        (b"def f(x):\n '''Does.'''", "f: x has no type hint"),
        (b"class C: ...\ndef f(x: C):\n '''Does.'''", "f: x is a C, which JSON has no form for"),
        (b"def f(x: int, /):\n '''Does.'''", "f: x cannot be given by name"),
        (b"f = lambda: 1", "f is called <lambda>: write `def f`"),
    ],
)
def test_bad_files(edgeq, tmp_path, source, fault):
    path = tmp_path / "own.py"
    path.write_bytes(source)
    outcome = edgeq("chat", "m.eqf", "--tools", path, "--yes")
    assert outcome.code == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert re.match(rf"edgeq: {re.escape(str(path))}: {re.escape(fault)}", outcome.err), outcome.err


def test_files_that_are_none(edgeq, tmp_path, file):
    assert "cannot be read: No such file" in edgeq("chat", "m.eqf", "--tools", tmp_path / "none.py", "--yes").err
    with pytest.raises(UsageError, match="area is in another file, too"):
        read_tools([file, file])
