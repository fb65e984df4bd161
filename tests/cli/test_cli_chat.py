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
    assert bytes(model._tokens[:20]) == b"u:one|a:hi|u:two|a:h"


def test_commands(edgeq, model, tmp_path):
    path = tmp_path / "talk.json"
    lines = ["/system be brief", "one", f"/save {path}", "/reset", "two \\", "lines", "/nonsense", "/exit", "three"]
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="\n".join(lines))
    assert (result.code, result.out) == (0, "hi\nhi\n")
    assert "/nonsense: no such command" in result.err
    assert json.loads(path.read_text()) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "hi"},
    ]
    assert bytes(model._tokens).startswith(b"s:be brief|u:two \nlines|a:")


def test_help_and_system_option(edgeq, model):
    result = edgeq("chat", "m.eqf", *GREEDY, "--system", "s", stdin="/help\n/system\nx")
    assert "/save FILE" in result.out
    assert bytes(model._tokens).startswith(b"u:x|"), "/system without text drops it"


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
    assert bytes(model._tokens[:18]) == b"u:one|a:h|u:two|a:", "what was said stays in the conversation"


def test_ctrl_c_at_the_prompt_drops_the_line(model, monkeypatch, capsys):
    answers = iter([KeyboardInterrupt, "one", EOFError])

    def typed(prompt):
        answer = next(answers)
        if isinstance(answer, type):
            raise answer
        return answer

    monkeypatch.setattr("builtins.input", typed)
    conversation = Conversation(model, None, {"temperature": 0.0}, False)
    conversation.talk()
    assert [message["content"] for message in conversation.messages] == ["one", "hi"]
    assert "Ctrl-D leaves" in capsys.readouterr().err


def test_a_full_context(edgeq, model):
    model.session.context = 16
    model.session.jumps = {}
    result = edgeq("chat", "m.eqf", *GREEDY, stdin="one\ntwo\n")
    assert result.out.startswith(";<=>")
    assert "(the context is full: /reset starts a new conversation)" in result.err
    assert (result.code, result.err.splitlines()[-1][:35]) == (2, "edgeq: the prompt has 26 tokens, th")


def test_at_a_terminal_an_error_does_not_end_the_conversation(model, monkeypatch, capsys):
    lines = iter(["x" * 100, "one"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    conversation = Conversation(model, None, {"temperature": 0.0}, False)
    conversation._interactive = True
    conversation.talk()
    assert "/reset starts a new conversation" in capsys.readouterr().err
    assert [message["content"] for message in conversation.messages] == ["one", "hi"]


def test_a_model_without_template_says_so_at_once(edgeq, monkeypatch):
    monkeypatch.setattr("edgeq.model.load", lambda path, **options: counting_model(chat_template=None))
    result = edgeq("chat", "m.eqf", stdin="one\n")
    assert (result.code, result.out) == (2, "")
    assert "the model has no chat template: give one with --template FILE" in result.err


def test_saving_fails_cleanly(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        save([], tmp_path / "missing" / "talk.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save([], tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "no temporary file stays"
