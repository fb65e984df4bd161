"""Whole chats at a terminal, with a model that computes a token only when it is let."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("termios", reason="these tests need a POSIX terminal")
import termios

from pseudo_terminal import PseudoTerminal

TESTS = Path(__file__).resolve().parent.parent
EVALUATIONS = 4  # of an answer: the prompt, and all its tokens but the last

# Answers "h i" to everything. Each evaluation takes a byte from the gate first. It looks for signals while it waits, as
# one that comes just before a plain read would not interrupt that: another thread, which reads a paste, may have the
# interpreter's lock for that long.
CHILD = f"""
import os, select, sys
sys.path.insert(0, {str(TESTS)!r})
import small_tokenizers as small
from counting import counting_model
import edgeq.loading
jumps = dict(zip(b":h i", [*b"h i", small.IM_END]))
model = counting_model(context=96, jumps=jumps)
real = model.session.eval
def evaluate(tokens, all_logits=False):
    gate = int(sys.argv[1])
    while not select.select([gate], [], [], 0.05)[0]:
        pass
    os.read(gate, 1)
    return real(tokens, all_logits)
model.session.eval = evaluate
edgeq.loading.load = lambda path, **options: model
from edgeq.cli import main
code = main(["chat", "m.eqf", "--temp", "0"])
sys.stdout.flush()
sys.stderr.write(f"editor: {{'prompt_toolkit' in sys.modules}}")
sys.exit(code)
"""


class ChatAtTerminal(PseudoTerminal):
    def __init__(self, folder: Path, **environment: str):
        gate, self._gate = os.pipe()
        self.folder = folder
        unwanted = ("NO_COLOR", "XDG_STATE_HOME", "EDGEQ_HISTORY")
        base = {name: value for name, value in os.environ.items() if name not in unwanted}
        base |= {"TERM": "xterm", "HOME": str(folder), **environment}
        super().__init__([sys.executable, "-c", CHILD, str(gate)], base, [gate])
        os.close(gate)
        self.expect("/help lists commands.")
        self.expect(">")

    def let(self, evaluations: int = EVALUATIONS) -> None:
        os.write(self._gate, b"x" * evaluations)

    def leave(self) -> list[str]:
        """End the chat; the contents of its messages."""
        path = self.folder / "talk.json"
        self.type(f"/save {path}\r")
        self.expect("messages saved)")
        self.type("/exit\r")
        self.expect("editor: ")
        assert self.ended() == 0
        return [message["content"] for message in json.loads(path.read_text())]

    def close(self) -> None:
        super().close()
        os.close(self._gate)


@pytest.fixture
def chat_with(tmp_path):
    """Begins chats with these variables in their environment."""
    begun: list[ChatAtTerminal] = []

    def begin(**environment: str) -> ChatAtTerminal:
        begun.append(ChatAtTerminal(tmp_path, **environment))
        return begun[-1]

    yield begin
    for chat in begun:
        chat.close()


def test_a_paste_is_one_message(chat_with):
    chat = chat_with()
    chat.type("\x1b[200~one\rtwo\r\x1b[201~")
    chat.expect("two")
    chat.let(5)  # its prompt is computed in two pieces
    chat.type("three\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one\ntwo\nthree", "h i"]


def test_keys_typed_ahead_are_the_next_message(chat_with):
    chat = chat_with()
    chat.type("one\r")
    chat.let(2)
    chat.expect("h")  # is shown when the space after it has come
    chat.type("two\x1b[200~x\ry\x1b[201~")
    chat.let(2)
    assert "two" not in chat.expect("i\r\n"), "it is not echoed into the answer"
    chat.expect("two")
    chat.let()
    chat.type("\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one", "h i", "twox\ny", "h i"]


def test_ctrl_c_keeps_what_was_said_and_what_was_typed(chat_with):
    chat = chat_with()
    chat.type("one\r")
    chat.let(2)
    chat.expect("h")
    chat.type("two\x03")
    shown = chat.expect("(stopped)")
    assert shown == "\r\n(stopped)"
    chat.expect("two")
    chat.let()
    chat.type("\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one", "h ", "two", "h i"]


def test_ctrl_c_is_heard_behind_a_large_paste(tmp_path, chat_with):
    """A terminal holds some 4000 keys that nobody reads, and does not look at those after them."""
    chat = chat_with()
    text = "\n".join(f"line {i}" for i in range(3000))
    chat.type("one\r")
    chat.let(2)
    chat.expect("h")
    chat.type(f"\x1b[200~{text}\x1b[201~\x03")
    chat.expect("(stopped)")
    chat.expect("2999")
    chat.type("\r")
    chat.expect("edgeq: the message has ")
    assert chat.leave() == ["one", "h "]
    history = (tmp_path / ".local" / "state" / "edgeq" / "chat-history").read_text().splitlines()
    assert json.loads(history[1]) == text


def test_the_history_is_there_the_next_time(tmp_path, chat_with):
    chat = chat_with()
    chat.let()
    chat.type("one\r")
    chat.expect("h i\r\n")
    chat.leave()
    path = tmp_path / ".local" / "state" / "edgeq" / "chat-history"
    assert path.read_text().splitlines()[0] == '"one"' and path.stat().st_mode & 0o777 == 0o600
    again = chat_with()
    again.type(3 * "\x1b[A")  # before it are /exit and /save
    again.expect("one")
    again.let()
    again.type("\r")
    again.expect("h i\r\n")
    assert again.leave() == ["one", "h i"]


def test_no_home_is_no_failure(tmp_path, chat_with):
    (tmp_path / "file").write_text("")
    chat = chat_with(HOME=str(tmp_path / "file"))
    chat.let()
    chat.type("one\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one", "h i"]


def test_a_bad_turn_is_told_and_the_talk_goes_on(chat_with):
    chat = chat_with()
    chat.type(f"{'x' * 100}\r")
    chat.expect("edgeq: the message has 105 tokens, the context 96: shorten it, or start with a larger --context\r\n")
    chat.let()
    chat.type("one\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one", "h i"]


def test_the_latest_message_is_edited_and_answered_again(chat_with):
    chat = chat_with()
    for keys in ("one\r", "/edit\r"):
        chat.let()
        chat.type(keys)
        chat.expect("h i\r\n" if keys == "one\r" else "one")
    chat.type("more\r")
    chat.expect("h i\r\n")
    assert chat.leave() == ["onemore", "h i"]


def test_the_terminal_is_left_as_it_was(chat_with):
    chat = chat_with()
    chat.leave()
    left = termios.tcgetattr(chat.slave)
    assert left[3] & termios.ECHO and left[3] & termios.ICANON and left[0] & termios.ICRNL
    assert not left[3] & termios.NOFLSH
    assert chat.raw.rfind(b"\x1b[?2004l") > chat.raw.rfind(b"\x1b[?2004h"), "pastes are no longer marked"


def test_a_dumb_terminal_gets_no_escape_codes_and_no_editor(chat_with):
    chat = chat_with(TERM="dumb")
    chat.let()
    chat.type("one\\\n")
    chat.expect(". ")
    chat.type("two\n")
    chat.expect("h i\r\n")
    assert chat.leave() == ["one\ntwo", "h i"]
    assert b"\x1b" not in chat.raw


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_leaves_the_editor(chat_with, no_color):
    chat = chat_with(NO_COLOR=no_color)
    chat.type("/re")
    chat.expect("regen")
    chat.type("\x15")
    chat.leave()
    assert bool(re.search(rb"\x1b\[[0-9;]*(?<![0-9])[34][0-8][;m]", chat.raw)) == (no_color == "")
    assert (b"\x1b[2m(" in chat.raw) == (no_color == "")
    assert b"\x1b[?2004h" in chat.raw


CALLING = f"""
import sys
sys.path[:0] = {[str(TESTS), str(TESTS / "cli")]!r}
from test_cli_chat_tools import AREA, answering
import edgeq.loading
edgeq.loading.load = lambda path, **options: answering(AREA, AREA, "Done.")
from edgeq.cli import main
sys.exit(main(["chat", "m.eqf", "--temp", "0", "--tools", sys.argv[1]]))
"""
AREA = """
import time
def area(width: float) -> float:
    "The area of what is as high as 1."
    print("working")
    time.sleep(1)
    return width
"""


def test_only_what_is_typed_after_a_question_answers_it(tmp_path):
    pytest.importorskip("llguidance", reason="pip install llguidance")
    (tmp_path / "own.py").write_text(AREA)
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "EDGEQ_HISTORY")}
    base |= {"TERM": "xterm", "HOME": str(tmp_path)}
    chat = PseudoTerminal([sys.executable, "-c", CALLING, str(tmp_path / "own.py")], base)
    question = "area(width=2): run it? [y]es, [N]o, [a]lways this one:"
    try:
        chat.expect("the model may call area, once you allow it")
        chat.expect(">")
        chat.type("So?\r")
        chat.expect(question)
        chat.type("y\r")
        chat.expect("working")
        chat.type("yes")  # while the first call runs
        chat.expect("area(width=2) -> 2.0")
        chat.expect(question)
        chat.type("\r")
        chat.expect("area(width=2) not allowed")
        chat.expect("Done.")
        chat.expect("yes")  # it waited for the next message
        chat.type(" /\x03")
        chat.type("/exit\r")
        assert chat.ended() == 0
    finally:
        chat.close()
