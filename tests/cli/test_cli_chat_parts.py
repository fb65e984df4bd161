"""The parts of a chat that know no terminal: what a text means, the saved file, the options, the history."""

import json
import os
import stat

import pytest
from counting import counting_model

from edgeq.cli.chat_commands import BYTES_PER_TOKEN, Talk, file, obey
from edgeq.cli.chat_conversation import Conversation, load, save
from edgeq.cli.chat_history import ENTRIES, LARGEST, HistoryFile
from edgeq.cli.chat_settings import change, shown
from edgeq.cli.chat_text import block_is_open, command_of, message_of, read_text
from edgeq.errors import EdgeqError, OutputError, UsageError
from edgeq.system import environment


def texts(*lines: str) -> list[str]:
    """What is read from these lines, until they end."""
    left = list(lines)

    def line(goes_on: bool) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    found = []
    while left:
        found.append(read_text(line))
    return found


def test_lines_that_go_on():
    assert texts("a", "b") == ["a", "b"]
    assert texts("a\\", "b\\", "c", "d") == ["a\nb\nc", "d"]
    assert texts("a\\") == ["a"], "the end of the input ends it too"


def test_blocks():
    assert [message_of(text) for text in texts('"""', "a\\", "", "b", '"""', "c")] == ["a\\\n\nb", "c"]
    assert [message_of(text) for text in texts('"""a', 'b"""', "c")] == ["a\nb", "c"]
    assert [message_of(text) for text in texts('"""one line"""')] == ["one line"]
    assert [message_of(text) for text in texts('"""', "never closed")] == ["never closed"]
    assert texts('what does """ mean', "next") == ['what does """ mean', "next"]
    assert not block_is_open('"""doc."""\ndef f(): pass')
    assert message_of('"""doc."""\ndef f(): pass') == '"""doc."""\ndef f(): pass', "pasted code stays as it is"


def test_commands_and_messages():
    assert command_of("/Save  a b ") == ("/save", "a b")
    assert command_of("/system a\nb") == ("/system", "a\nb")
    assert command_of("/help") == ("/help", "")
    assert command_of("//help") is None and message_of("//help") == "/help"
    assert command_of(" /help") is None and command_of('"""/help"""') is None
    assert message_of("a // b") == "a // b"


TALK = [{"role": "user", "content": "é\n"}, {"role": "assistant", "content": ""}]
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize("messages", [[], TALK, [SYSTEM], [SYSTEM, *TALK, *TALK]])
def test_what_is_saved_is_loaded(tmp_path, messages):
    save(messages, tmp_path / "t.json")
    system, turns = load(tmp_path / "t.json")
    conversation = Conversation(counting_model())
    conversation.begin(system, turns)
    assert conversation.history() == messages


def test_pictures_of_a_message_that_failed_go_with_it(monkeypatch):
    """They stand nowhere in what comes after, be that an answer again, with calls of tools."""
    conversation = Conversation(counting_model())
    monkeypatch.setattr(conversation, "_tokens", len)
    conversation.prompt("a")
    conversation.keep("a", "b")
    conversation.prompt("c", pictures=["a picture"])  # of which nothing is kept
    called = [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "said"}]
    assert conversation.prompt("a", True, called) == [{"role": "user", "content": "a"}, *called]
    conversation.keep("a", "b", True, called)
    conversation.check_saved()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"{}", "it must be a list of messages"),
        (b"[1]", "message 1 must have a role and a content, and nothing else"),
        (b'[{"role": "user"}]', "message 1 must have a role and a content, and nothing else"),
        (b'[{"role": "user", "content": "a", "x": 1}]', "and nothing else"),
        (b'[{"role": "user", "content": [1]}]', "the content of message 1 must be text"),
        (b'[{"role": "user", "content": "\\ud800"}]', "the content of message 1 must be text"),
        (b'[{"role": "user", "content": "a"}]', "the last message has no answer"),
        (json.dumps([*TALK, SYSTEM]).encode(), "message 3 must be one of role user"),
        (json.dumps([TALK[0], TALK[0]]).encode(), "message 2 must be one of role assistant"),
        (json.dumps(TALK[::-1]).encode(), "message 1 must be one of role user"),
        (b'[{"role": {}, "content": "a"}]', "message 1 must be one of role user"),
    ],
)
def test_what_was_not_saved_is_refused_and_nothing_lost(tmp_path, content, fault):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    talk = Talk(counting_model(), Conversation(counting_model(), "old"), {})
    talk.conversation.keep("a", "b")
    with pytest.raises(UsageError, match=fault) as error:
        obey(talk, "/load", str(path))
    assert str(error.value).count(str(path)) == 1
    assert [message["content"] for message in talk.conversation.history()] == ["old", "a", "b"]


def test_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a regular file"):
        load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match="is not a regular file"):
            load(tmp_path / "pipe")


def test_saving_fails_cleanly(tmp_path):
    with pytest.raises(OutputError, match="does not exist: create it first"):
        save([], tmp_path / "missing" / "talk.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is not a regular file"):
        save([], tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "no temporary file stays"


@pytest.fixture
def talk() -> Talk:
    model = counting_model(context=64)
    return Talk(model, Conversation(model), {})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xff", "is not UTF-8 text"),
        (b" \n", "is empty"),
        (b"x" * 65, "has 65 tokens, the context 64"),
        (b"x" * (64 * BYTES_PER_TOKEN + 1), "0.0 MB are more than a context of 64 tokens holds"),
        (None, "cannot be read: No such file"),
    ],
)
def test_files_that_are_no_message(talk, tmp_path, content, fault):
    path = tmp_path / "note"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=fault):
        file(talk, f"{path} what is it")
    with pytest.raises(UsageError, match="is not a regular file"):
        file(talk, str(tmp_path))
    assert talk.attached == []


def test_the_name_of_a_file_ends_where_a_file_is(talk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "a b"):
        (tmp_path / name).write_text(name)
    for typed, name, question in [
        ("a b what", "a b", "what"),
        ("a what", "a", "what"),
        ('"a" b', "a", "b"),
        ("~/a b", "a b", None),
        ("a\nmany\nlines", "a", "many\nlines"),
    ]:
        talk.attached.clear()
        ask = file(talk, typed)
        assert talk.attached == [f"{name}:\n```\n{name}\n```"]
        assert (ask.text if ask else None) == question


def test_a_fence_is_longer_than_those_in_the_file(talk, tmp_path):
    (tmp_path / "f").write_text("````\n")
    file(talk, str(tmp_path / "f"))
    assert talk.attached == ["f:\n`````\n````\n`````"]


def test_options_are_set_and_given_back():
    given = {"top_k": 3}
    for text in ("temp 0.5", "--max-tokens 7", "stop a\\n b", "seed 4"):
        change(given, text)
    assert given == {"top_k": 3, "temperature": 0.5, "max_tokens": 7, "stop": ["a\n b"], "seed": 4}
    for text in ("seed -1", "max_tokens -1", "top_k -1", "repeat_penalty 1.1", "--repeat-last-n -1"):  # llama.cpp's
        change(given, text)
    for name in ("--n-predict", "num_predict"):
        change(given, f"{name} 5")
        assert given.pop("max_tokens") == 5
    penalty = {"repetition_penalty": 1.1, "repetition_window": -1}
    assert given == {"top_k": 0, "temperature": 0.5, "stop": ["a\n b"], **penalty}
    for name in penalty:
        change(given, f"{name} default")
    for text, stops in [('stop "x\\ny"', ["x\ny"]), ('stop ["a", "b"]', ["a", "b"]), ("stop [INST]", ["[INST]"])]:
        change(given, text)
        assert given["stop"] == stops
    for name in ("top_k", "stop", "seed", "max_tokens", "temperature"):
        change(given, f"{name} default")
    assert given == {}
    assert shown(given, {}, "temperature") == "temperature            0.8 (default)"
    own = {"temperature": 0.6}
    assert shown(given, own, "temperature") == "temperature            0.6 (the model's)"
    assert shown({"temperature": 1.0}, own, "temperature") == "temperature            1.0"
    assert shown(given, {}, "stop") == "stop                   none (default)"


def test_set_as_ollama_has_it(talk, capsys):
    obey(talk, "/set", "parameter top_k 5")
    obey(talk, "/set", "parameter")
    assert talk.settings == {"top_k": 5} and "top_p" in capsys.readouterr().err
    for text, told in (("system Be brief.", "is set"), ("system", "is dropped")):
        obey(talk, "/set", text)
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("temperatur 1", "temperatur: no such option; did you mean temperature?"),
        ("x 1", "x: no such option; /set lists them"),
        ("top_k many", "top_k is 'many': it must be a whole number"),
        ("top_k 1.5", "top_k is '1.5': it must be a whole number"),
        ("temperature nan", "temperature is nan: it must be 0 or more"),
        ("top_p 0", "top_p is 0.0: it must be more than 0"),
        ("max_tokens -2", "max_tokens is -2: it must be 0 or more"),
        ("seed -2", "seed is -2: it must be 0 or more"),
        ('stop ""', "a stop string is empty"),
        ('stop "a', "stop is '\"a': it must be a text"),
    ],
)
def test_options_that_cannot_work_change_nothing(text, fault):
    given = {"top_k": 3}
    with pytest.raises(EdgeqError) as error:
        change(given, text)
    assert str(error.value).startswith(fault)
    assert given == {"top_k": 3}


def test_the_history_is_read_back_and_is_ones_own(tmp_path):
    path = tmp_path / "state" / "edgeq" / "history"
    for text in ("one", "two\nlines ü", "\udcff"):
        HistoryFile(path).add(text)
    HistoryFile(path).add("x" * (LARGEST + 1))
    assert HistoryFile(path).read() == ["one", "two\nlines ü", "\udcff"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    HistoryFile(path).add("more")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_history_is_bounded(tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b"".join(b'"%d"\n' % i for i in range(2 * ENTRIES + 1)))
    assert HistoryFile(path).read() == [str(i) for i in range(ENTRIES + 1, 2 * ENTRIES + 1)]
    assert len(path.read_bytes().splitlines()) == ENTRIES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["history"], "no temporary file stays"


def test_a_history_that_is_damaged_or_no_file(tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b'"a"\n\xff\n[1]\n"b')
    assert HistoryFile(path).read() == ["a"]
    (tmp_path / "file").write_text("")
    places = [None, tmp_path, tmp_path / "file" / "below"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
    for place in places:
        HistoryFile(place).add("x")
        assert HistoryFile(place).read() == []


def test_where_the_history_is(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEQ_HISTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert environment.history_file() == tmp_path / "edgeq" / "chat-history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.history_file() == tmp_path / ".local" / "state" / "edgeq" / "chat-history"
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert environment.history_file() is None
    monkeypatch.setenv("EDGEQ_HISTORY", "-")
    assert environment.history_file() is None
    monkeypatch.setenv("EDGEQ_HISTORY", str(tmp_path / "h"))
    assert environment.history_file() == tmp_path / "h"


def test_options_that_are_no_numbers():
    given = {}
    change(given, "logit_bias 5=+1.5")
    change(given, r'dry_sequence_breakers ["\n", "x y"]')
    assert given == {"logit_bias": {5: 1.5}, "dry_sequence_breakers": ("\n", "x y")}
    assert shown(given, {}, "logit_bias").split(maxsplit=1) == ["logit_bias", "{5: 1.5}"]
    for text, fault in (
        ("logit_bias 5", "logit_bias is '5': it must be numbers, less than infinity, by token id"),
        ("logit_bias -1=2", "logit_bias is {-1: 2.0}: it must be numbers"),
        ("allowed x", "allowed: no such option"),
    ):
        with pytest.raises(EdgeqError) as error:
            change(given, text)
        assert str(error.value).startswith(fault) and len(given) == 2
