"""The editor of a chat, with keys from a pipe and no screen."""

import os

import pytest

pytest.importorskip("prompt_toolkit")
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgeq.cli.chat_editor import CommandCompleter, Editor
from edgeq.cli.chat_history import HistoryFile
from edgeq.cli.chat_text import message_of
from edgeq.errors import UsageError

UP, ALT_ENTER, ENTER = "\x1b[A", "\x1b\r", "\r"


def paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


def typed(*keys: str, history: HistoryFile | None = None, edit: str | None = None) -> list[str | None]:
    """The texts that the editor gives, one for each of these keys."""
    with create_pipe_input() as pipe:
        editor = Editor(history or HistoryFile(None), pipe, DummyOutput())
        found = []
        for text in keys:
            pipe.send_bytes(text.encode(errors="surrogateescape"))
            found.append(editor.read() if edit is None else editor.edit(edit))
        return found


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("one\r", "one"),
        (paste("one\r\ntwo\r\rthree\n") + ENTER, "one\ntwo\n\nthree"),
        (paste("one\ntwo\n") + "three" + ENTER, "one\ntwo\nthree"),
        (paste("a \\\nb \\\n") + ENTER, "a \\\nb \\"),
        ("one" + ALT_ENTER + "two\x0athree\r", "one\ntwo\nthree"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("  one\x0atwo\r", "  one\ntwo"),
        ('"""one\rtwo\r"""\r', '"""one\ntwo\n"""'),
        ("onx\x7fe\r", "one"),
        ("/exit now" + ALT_ENTER + "x\r", "/exit now\nx"),
        ("\x04", None),
    ],
)
def test_what_keys_give(keys, text):
    assert typed(keys) == [text]


def test_keys_after_enter_are_for_the_next_text():
    with create_pipe_input() as pipe:
        editor = Editor(HistoryFile(None), pipe, DummyOutput())
        pipe.send_text("one\rtwo\r" + paste("three\nlines"))
        assert [editor.read(), editor.read()] == ["one", "two"]
        pipe.send_text(ENTER)
        assert editor.read() == "three\nlines"


def test_pasted_code_that_begins_with_quotes_can_be_sent():
    code = '"""Says."""\nprint(1)'
    (text,) = typed(paste(code) + ENTER)
    assert text is not None and message_of(text) == code


def test_ctrl_c_and_bytes_that_are_no_text():
    with pytest.raises(KeyboardInterrupt):
        typed("\x03")
    assert typed("abc\x03") == [""], "what was typed is dropped, and nothing else"
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        typed("a\udcff\r")


def test_the_latest_message_is_edited():
    assert typed(" more\r", edit="what\nwas") == ["what\nwas more"]
    assert typed("\x03", edit="what") == [None], "Ctrl-C leaves it as it was"


def test_the_history_of_earlier_chats(tmp_path):
    path = tmp_path / "history"
    typed("one\r", paste("two\nlines") + ENTER, history=HistoryFile(path))
    assert typed(UP + UP + UP + ENTER, history=HistoryFile(path)) == ["one"]
    assert typed("\x12lin\r\r", history=HistoryFile(path)) == ["two\nlines"], "Ctrl-R searches it"


def test_a_history_that_cannot_be_kept_is_kept_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    for history in (HistoryFile(tmp_path / "file" / "history"), HistoryFile(None)):
        assert typed("one\r", UP + ENTER, history=history) == ["one", "one"]


def completions(text: str) -> list[str]:
    return [found.text for found in CommandCompleter().get_completions(Document(text), CompleteEvent())]


def test_what_is_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "notebooks").mkdir()
    assert completions("/re") == ["/reset", "/regen"]
    assert sorted(completions("/load not")) == ["ebooks", "es.txt"]
    assert completions(f"/save {tmp_path}{os.sep}notes") == [".txt"]
    assert completions("/set t") == ["temperature", "top_k", "top_p", "typical_p", "top_n_sigma"]
    assert completions("/set top_k d") == ["default"]
    for message in ("not", "a /re", "/load a\nnot", "/nothing not", "/regen n"):
        assert completions(message) == []
