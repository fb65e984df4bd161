import json

import pytest
import small_tokenizers as small
from counting import counting_model

from edgeq.cli.chat import Conversation, save
from edgeq.errors import OutputError

GREEDY = ("--temp", 0)


@pytest.fixture
def model(monkeypatch):
    """Answers every message with "hi"."""
    model = counting_model(context=96, jumps={ord(":"): ord("h"), ord("h"): ord("i"), ord("i"): small.IM_END})
    monkeypatch.setattr("edgeq.model.load", lambda path, **options: model)
    return model


def test_a_conversation_keeps_its_history(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\ntwo\n")
    assert result == (0, "hi\nhi\n", "")
    assert bytes(model.session.evaluated).startswith(b"u:one|a:h")
    assert bytes(model._cache.tokens[:20]) == b"u:one|a:hi|u:two|a:h"


def test_commands(edgeq, model, tmp_path):
    path = tmp_path / "talk.json"
    lines = ["/system be brief", "one", f"/save {path}", "/reset", "two \\", "lines", "/nonsense"]
    lines += ["/save", f"/Save {tmp_path / 'none' / 'x'}", "/EXIT", "three"]
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="\n".join(lines))
    assert (result.code, result.out) == (0, "hi\nhi\n")
    assert result.err.splitlines() == [
        "(the system message is set, the conversation forgotten)",
        f"({path}: 3 messages saved)",
        "(the conversation is forgotten)",
        "/nonsense: no such command; /help lists them",
        "usage: /save FILE",
        f"{tmp_path / 'none' / 'x'}: the folder {tmp_path / 'none'} does not exist: create it first",
    ]
    assert json.loads(path.read_text()) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "hi"},
    ]
    assert bytes(model._cache.tokens).startswith(b"s:be brief|u:two \nlines|a:")


def test_help_and_system_option(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, "--system", "s", stdin="/help\n/system\nx")
    assert "/save FILE" in result.out
    assert bytes(model._cache.tokens).startswith(b"u:x|"), "/system without text drops it"


def test_ctrl_c_stops_the_answer_not_the_program(edgeq, model, monkeypatch):
    real = model.session.eval
    calls = []

    def interrupted_once(tokens, all_logits=False):
        calls.append(tokens)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", interrupted_once)
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\ntwo\n")
    assert (result.code, result.out) == (0, "h\nhi\n")
    assert "(stopped)" in result.err
    assert bytes(model._cache.tokens[:18]) == b"u:one|a:h|u:two|a:", "what was said stays in the conversation"


def typed(monkeypatch, *lines):
    """Make input() give these lines, raise those that are exceptions, and end after them."""
    left = iter(lines)

    def read(prompt):
        line = next(left, EOFError)
        if isinstance(line, type):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)


def conversation_of(model, monkeypatch, *lines):
    """A conversation at a terminal, in which these lines have been typed."""
    typed(monkeypatch, *lines)
    conversation = Conversation(model, None, {"temperature": 0.0}, False)
    conversation._interactive = True
    conversation.talk()
    return conversation


def contents(conversation):
    return [message["content"] for message in conversation.messages]


def test_ctrl_c_before_an_answer_drops_the_message(model, monkeypatch, capsys):
    real, broken = model.session.eval, [True]

    def interrupted_once(tokens, all_logits=False):
        if broken.pop() if broken else False:
            raise KeyboardInterrupt
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", interrupted_once)
    conversation = conversation_of(model, monkeypatch, "one", "two")
    out, err = capsys.readouterr()
    assert contents(conversation) == ["two", "hi"]
    assert out == "hi\n", "no empty line"
    assert "(stopped before an answer: the message is not kept)" in err


def test_ctrl_c_at_the_prompt_drops_the_line_and_leaves_the_second_time(model, monkeypatch, capsys):
    conversation = conversation_of(model, monkeypatch, KeyboardInterrupt, "one", "two\\", KeyboardInterrupt, "three")
    assert contents(conversation) == ["one", "hi", "three", "hi"]
    assert capsys.readouterr().err.count("another Ctrl-C leaves") == 2
    with pytest.raises(KeyboardInterrupt):
        conversation_of(model, monkeypatch, "one", KeyboardInterrupt, KeyboardInterrupt)


def test_two_ctrl_c_are_130(edgeq, model, monkeypatch):
    typed(monkeypatch, KeyboardInterrupt, KeyboardInterrupt)
    assert edgeq("chat", "m.eqf").code == 130


def test_the_banner(model, monkeypatch, capsys):
    conversation_of(model, monkeypatch)
    assert capsys.readouterr().err.splitlines()[0] == "counting.eqf: llama, 2.16 K parameters, context 96"


def test_an_answer_cut_off_by_the_context(edgeq, model):
    model.session.context = 16
    model.session.jumps = {}
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\n")
    assert result.out.startswith(";<=>")
    assert (result.code, result.err) == (0, "(the context is full: the answer was cut off)\n")


def test_the_oldest_turns_make_room(edgeq, model, tmp_path):
    """A turn is 14 tokens in a context of 96: the sixth prompt leaves less than a quarter, the third less than half."""
    path = tmp_path / "talk.json"
    messages = [f"message{i}"[-5:] for i in range(6)]
    lines = [*messages, f"/save {path}"]
    result = edgeq("chat", "m.eqf", *GREEDY, "--system", "s", stdin="\n".join(lines))
    assert (result.code, result.out) == (0, "hi\n" * 6)
    assert result.err.splitlines()[0] == "(the oldest 6 messages no longer fit and were dropped)"
    expected = b"s:s|" + b"".join(b"u:%s|a:hi|" % text.encode() for text in messages[3:])
    assert bytes(model._cache.tokens) == expected[:-1]
    assert len(json.loads(path.read_text())) == 13, "what is saved is the whole conversation"


TOO_LONG = "edgeq: the message has 105 tokens, the context 96: shorten it, or start with a larger --context\n"


def test_a_message_that_is_too_long_alone(edgeq, model):
    assert edgeq("chat", "m.eqf", *GREEDY, stdin="x" * 100) == (2, "", TOO_LONG)


def test_at_a_terminal_an_error_does_not_end_the_conversation(model, monkeypatch, capsys):
    conversation = conversation_of(model, monkeypatch, "zero", "x" * 100, "one")
    assert TOO_LONG in capsys.readouterr().err
    assert contents(conversation) == ["zero", "hi", "one", "hi"]


def test_binary_messages(edgeq, model):
    result = edgeq("chat", "m.eqf", stdin=b"\xff\n")
    assert result == (2, "", "edgeq: the messages on stdin are not UTF-8 text: convert them to UTF-8\n")


def test_a_model_without_template_says_so_at_once(edgeq, monkeypatch):
    monkeypatch.setattr("edgeq.model.load", lambda path, **options: counting_model(chat_template=None))
    result = edgeq("chat", "m.eqf", stdin="one\n")
    assert (result.code, result.out) == (2, "")
    assert "the model has no chat template: give one with --template FILE" in result.err


def test_saving_fails_cleanly(tmp_path):
    with pytest.raises(OutputError, match="does not exist: create it first"):
        save([], tmp_path / "missing" / "talk.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is not a regular file"):
        save([], tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "no temporary file stays"
