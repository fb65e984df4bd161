import contextlib
import json
import sys
from types import SimpleNamespace

import pytest
import small_tokenizers as small
from counting import counting_model

from edgeq.cli.chat import Chat
from edgeq.cli.chat_commands import COMMANDS, Ask
from edgeq.cli.chat_input import Piped, Terminal, reader
from edgeq.errors import ContextError, EdgeqError, TemplateError, UsageError

GREEDY = ("--temp", 0)


def greeting_model():
    """Answers every message with "hi"."""
    return counting_model(context=96, jumps={ord(":"): ord("h"), ord("h"): ord("i"), ord("i"): small.IM_END})


@pytest.fixture
def model(monkeypatch):
    model = greeting_model()
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: model)
    return model


def test_a_conversation_keeps_its_history(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\ntwo\n")
    assert result == (0, "hi\nhi\n", "")
    assert bytes(model.session.evaluated).startswith(b"u:one|a:hi|u:two|a:h")


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
        "/nonsense: no such command; /help lists them, // begins a message with a slash",
        "usage: /save FILE",
        f"{tmp_path / 'none' / 'x'}: the folder {tmp_path / 'none'} does not exist: create it first",
    ]
    assert json.loads(path.read_text()) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "hi"},
    ]
    assert bytes(model._latest.sequence[:-1]).startswith(b"s:be brief|u:two \nlines|a:")


def test_help_and_system_option(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, "--system", "s", stdin="/help\n/system\nx")
    assert "/save FILE" in result.out
    assert bytes(model._latest.sequence[:-1]).startswith(b"u:x|"), "/system without text drops it"


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
    assert bytes(model._latest.sequence[:18]) == b"u:one|a:h|u:two|a:", "what was said stays in the conversation"


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
    chat = Chat(model, None, {"temperature": 0.0, "speculate": False}, False, Terminal())
    chat.go_on()
    return chat.talk.conversation


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
    monkeypatch.setattr("edgeq.cli.chat.reader", Terminal)
    assert edgeq("chat", "m.eqf").code == 130


def test_the_banner(edgeq, model, monkeypatch, tmp_path):
    monkeypatch.setattr("edgeq.cli.chat.reader", Terminal)
    (tmp_path / "m.gguf").write_text("")
    for named, shown in ((tmp_path / "m.gguf", "m.gguf"), ("owner/name", "owner/name")):
        err = edgeq("chat", named).err.splitlines()
        assert err[:2] == [f"{shown}: llama, 2.16 K parameters, context 96", "/help lists commands."]


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
    assert bytes(model._latest.sequence[:-1]) == expected[:-1]
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
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: counting_model(chat_template=None))
    result = edgeq("chat", "m.eqf", stdin="one\n")
    assert (result.code, result.out) == (2, "")
    assert "the model has no chat template: give one with --template FILE" in result.err


def test_lines_of_windows_blocks_and_slashes(edgeq, model, monkeypatch):
    lines = b'one\r\n"""two\r\n\\\r\n"""\r\n//help\r\n"""/help"""\r\ngoes \\\r\non'
    seen = []
    real = model.chat
    monkeypatch.setattr(model, "chat", lambda messages, **given: seen.append(messages) or real(messages, **given))
    monkeypatch.setattr("edgeq.cli._prepare_streams", lambda: sys.stdin.reconfigure(newline="\n"))  # as on Linux
    assert edgeq("chat", "m.eqf", *GREEDY, stdin=lines).code == 0
    assert [talk[-1]["content"] for talk in seen] == ["one", "two\n\\", "/help", "/help", "goes \non"]


def failing_once(monkeypatch, model, at: int, error: Exception):
    """Make the session fail with its `at`-th call."""
    real, calls = model.session.eval, []

    def evaluate(tokens, all_logits=False):
        calls.append(tokens)
        if len(calls) == at:
            raise error
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", evaluate)


@pytest.mark.parametrize(("at", "shown"), [(4, "hi\nhi\n"), (5, "hi\nh\nhi\n")])
@pytest.mark.parametrize("error", [EdgeqError, UsageError, TemplateError])
def test_any_bad_turn_is_told_and_the_talk_goes_on(model, monkeypatch, capsys, at, shown, error):
    failing_once(monkeypatch, model, at, error("the numbers\nare damaged"))
    conversation = conversation_of(model, monkeypatch, "zero", "bad", "one")
    out, err = capsys.readouterr()
    assert contents(conversation) == ["zero", "hi", "one", "hi"]
    assert out == shown
    assert "edgeq: the numbers are damaged\n" in err


def small_vocabulary(model):
    """Its tokenizer then has tokens beyond the embedding's rows: that of "}" is the first."""
    _ = model.tokenizer
    model.__dict__["vocab_size"] = ord("}")


def test_a_token_beyond_the_vocabulary_does_not_end_a_talk(model, monkeypatch, capsys):
    small_vocabulary(model)
    conversation = conversation_of(model, monkeypatch, "one", "{}", "/regen")
    assert contents(conversation) == ["one", "hi"]
    assert capsys.readouterr().err.count("edgeq: token 125 is not in the model's vocabulary of 125\n") == 1


def test_a_bad_turn_ends_a_script(edgeq, model):
    small_vocabulary(model)
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\n{}\nthree\n")
    assert result == (2, "hi\n", "edgeq: token 125 is not in the model's vocabulary of 125\n")


def test_bytes_that_are_no_text_do_not_end_a_talk(model, monkeypatch, capsys):
    left = [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "one", EOFError()]

    class Lines(Terminal):
        def _line(self, goes_on):
            line = left.pop(0)
            if isinstance(line, Exception):
                raise line
            return line

    chat = Chat(model, None, {"temperature": 0.0}, False, Lines())
    chat.go_on()
    assert contents(chat.talk.conversation) == ["one", "hi"]
    assert "edgeq: the messages on stdin are not UTF-8 text" in capsys.readouterr().err


def test_an_empty_answer_says_why(edgeq, model):
    model.session.jumps[ord(":")] = small.IM_END
    assert edgeq("chat", "m.eqf", *GREEDY, stdin="one\n") == (0, "\n", "(the model ended its answer at once)\n")


def test_regen_and_edit_answer_again(edgeq, model, tmp_path):
    path = tmp_path / "talk.json"
    lines = ["one", "two", "/regen", "/edit three", "/edit", f"/save {path}"]
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="\n".join(lines))
    assert (result.code, result.out) == (0, "hi\n" * 4)
    assert [message["content"] for message in json.loads(path.read_text())] == ["one", "hi", "three", "hi"]
    assert "usage: /edit TEXT" in result.err
    early = edgeq("chat", "m.eqf", stdin="/regen\n/edit x\n")
    assert early == (0, "", "there is no message yet\n" * 2)


def test_again_keeps_the_old_answer_where_it_fails(model, monkeypatch):
    failing_once(monkeypatch, model, 4, EdgeqError("damaged"))
    conversation = conversation_of(model, monkeypatch, "one", "/edit two")
    assert contents(conversation) == ["one", "hi"]
    failing_once(monkeypatch, model, 4, KeyboardInterrupt())
    conversation = conversation_of(model, monkeypatch, "one", "/regen")
    assert contents(conversation) == ["one", "hi"]


def test_a_saved_talk_is_loaded_again(edgeq, model, monkeypatch, tmp_path):
    first, second = tmp_path / "first file.json", tmp_path / "second.json"
    lines = ["/system be brief", "one", "two\\", "lines", f"/save {first}"]
    assert edgeq("chat", "m.eqf", *GREEDY, stdin="\n".join(lines)).code == 0
    model = greeting_model()
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: model)
    result = edgeq("chat", "m.eqf", *GREEDY, stdin=f"/load {first}\n/save {second}\nthree\n")
    assert (result.code, result.out) == (0, "hi\n")
    assert result.err == f"({first}: 5 messages loaded)\n({second}: 5 messages saved)\n"
    assert second.read_bytes() == first.read_bytes()
    assert bytes(model._latest.sequence[:-1]).startswith(b"s:be brief|u:one|a:hi|u:two\nlines|a:hi|u:three|a:")


def test_a_file_goes_before_the_next_message(edgeq, model, tmp_path):
    note = tmp_path / "a note.txt"
    note.write_bytes(b"\xef\xbb\xbfabc\r\n")
    result = edgeq("chat", "m.eqf", *GREEDY, stdin=f"/file {note}\nwhat?\n/reset\n/file {note} so?\nplain\n")
    assert result.err.splitlines() == [
        f"({note}: 4 tokens, put before the next message)",
        "(the conversation is forgotten)",
        f"({note}: 4 tokens)",
    ]
    expected = b"u:a note.txt:\n```\nabc\n```\n\nso?|a:hi|u:plain|a:"
    assert bytes(model._latest.sequence[:-1]).startswith(expected)


def test_a_file_stays_where_its_message_was_not_answered(model, monkeypatch):
    reader = SimpleNamespace(interactive=True, echoes=False, answering=contextlib.nullcontext)
    chat = Chat(model, None, {"temperature": 0.0}, False, reader)
    chat.talk.attached.append("abc")

    def refuse(*arguments, **options):
        raise ContextError("too long")

    with monkeypatch.context() as patch:
        patch.setattr(model, "chat", refuse)
        with pytest.raises(ContextError):
            chat._answer(Ask("what?"))
    assert chat.talk.attached == ["abc"]
    chat._answer(Ask("what?"))
    assert chat.talk.attached == [] and chat.talk.conversation.latest == "abc\n\nwhat?"


def test_a_reset_drops_the_file_too(edgeq, model, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("abc")
    assert edgeq("chat", "m.eqf", *GREEDY, stdin=f"/file {note}\n/reset\nx\n").code == 0
    assert bytes(model._latest.sequence[:-1]).startswith(b"u:x|")


def test_set_changes_what_an_answer_gets(edgeq, model):
    result = edgeq("chat", "m.eqf", stdin="/set temperature 0\n/set stop i\none\n/set max_tokens 0\ntwo\n")
    assert (result.code, result.out) == (0, "h\n\n")
    assert result.err.splitlines() == [
        "temperature            0.0",
        'stop                   ["i"]',
        "max_tokens             0",
        "(max_tokens: the answer was cut off)",
    ]


def test_tokens_and_timings(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="/tokens\none\n/tokens\n/timings\n")
    lines = result.err.splitlines()
    assert lines[0] == "(0 messages: 0 tokens of a context of 96, 0 %; 0 are computed)"
    assert lines[1] == "(2 messages: 13 tokens of a context of 96, 14 %; 10 are computed)"
    assert lines[2].startswith("load ") and lines[5].startswith("generation ")


@pytest.mark.parametrize("command", ["/reset", "/clear", "/CLEAR"])
def test_an_alias_is_the_command(edgeq, model, command):
    assert edgeq("chat", "m.eqf", stdin=command) == (0, "", "(the conversation is forgotten)\n")


def test_did_you_mean(edgeq, model):
    result = edgeq("chat", "m.eqf", stdin="/rgen x\n")
    assert result.err == (
        "/rgen: no such command; did you mean /regen? /help lists them, // begins a message with a slash\n"
    )


def test_help_names_every_command(edgeq, model):
    out = edgeq("chat", "m.eqf", stdin="/?\n").out
    assert [name for name in COMMANDS if f"\n{name.name} " not in f"\n{out}"] == []


def test_without_the_editor_a_plain_terminal_does(monkeypatch):
    """Boards may lack the package; and a terminal may know no escape codes."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "edgeq.cli.chat_editor", raising=False)
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert type(reader()) is Terminal
    monkeypatch.undo()
    assert type(reader()) is Piped


def test_an_answer_is_wrapped_at_the_terminals_width_and_nowhere_else(model, monkeypatch, capsys):
    model.session.jumps = dict(zip(b":abcdefgh", [*b"abcdefgh", small.IM_END], strict=True))
    model.session.jumps |= {ord("c"): ord(" "), ord(" "): ord("d")}
    monkeypatch.setattr("edgeq.cli.chat.terminal_columns", lambda stream: 6)
    for terminal, shown in ((True, "abc\ndefgh\n"), (False, "abc defgh\n")):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        conversation = conversation_of(model, monkeypatch, "x")
        assert capsys.readouterr().out == shown
        assert contents(conversation) == ["x", "abc defgh"]
