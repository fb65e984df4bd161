"""`edgeq prefix`, `--prefix` and `chat --session`: what was evaluated once is not evaluated again."""

import json
import re
import zlib
from pathlib import Path

import pytest

from edgeq.loading import load
from edgeq.quantize.pipeline import convert

GREEDY = ("--temp", 0, "-n", 8, "-t", 1, "-c", 200)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model) -> Path:
    path = tmp_path_factory.mktemp("prefix") / "tiny.eqf"
    convert(tiny_model, path, "Q8_0")
    return path


@pytest.fixture
def template(tmp_path) -> Path:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}a:")
    return path


def cached(err: str) -> int:
    found = re.search(r"\((\d+) more kept\)", err)
    return int(found[1]) if found else 0


def test_a_text_that_was_evaluated_before(edgeq, model, tmp_path):
    beginning, rest = "Once upon a time there was a little dog. ", "It was red"
    (tmp_path / "story.txt").write_text(beginning + "\n")
    result = edgeq("prefix", model, "--raw", "--prompt", tmp_path / "story.txt", "-t", 1, "-c", 200)
    assert result.code == 0 and re.match(rf"{tmp_path}/story.eqp: \d+ tokens, .+B\n", result.out)
    whole = edgeq("run", model, "--raw", beginning + rest, "--timings", *GREEDY)
    begun = edgeq("run", model, "--raw", rest, "--prefix", tmp_path / "story.eqp", "--timings", *GREEDY)
    assert begun.out == whole.out and cached(whole.err) == 0 and cached(begun.err) >= 8


def test_a_system_message_that_was_evaluated_before(edgeq, model, template, tmp_path):
    system = "You are a little dog, who likes big red balls and a walk."
    (tmp_path / "s.txt").write_text(system)
    path = tmp_path / "dog.eqp"
    flags = ("--template", template, "-c", 200)
    assert edgeq("prefix", model, "--prompt", tmp_path / "s.txt", "-o", path, *flags).code == 0
    flags = ("--template", template, "--timings", *GREEDY)
    whole = edgeq("run", model, "Who are you?", "--system", system, *flags)
    begun = edgeq("run", model, "Who are you?", "--prefix", path, *flags)
    assert begun.out == whole.out and cached(begun.err) >= 10
    talk = edgeq("chat", model, "--prefix", path, *flags, stdin="Who are you?\n")
    assert (talk.code, talk.out) == (0, whole.out) and cached(talk.err) >= 10
    result = edgeq("run", model, "--raw", "x", "--prefix", path, *GREEDY)
    assert result.code == 2 and "is a system message, which --raw has none of" in result.err


def test_a_conversation_goes_on_after_a_restart(edgeq, model, template, tmp_path):
    path, flags = tmp_path / "talk.eqp", ("--template", template, "--timings", *GREEDY)
    whole = edgeq("chat", model, "--system", "Be a dog.", *flags, stdin="one\ntwo\nthree\n")
    first = edgeq("chat", model, "--system", "Be a dog.", "--session", path, *flags, stdin="one\ntwo\n")
    begin = path.read_bytes()
    then = edgeq("chat", model, "--session", path, *flags, stdin="three\n")
    assert first.out + then.out == whole.out and cached(then.err) == cached(whole.err.rpartition("load")[2]) > 10
    assert path.read_bytes() != begin
    again = edgeq("chat", model, "--session", path, *flags, stdin="/tokens\n")
    assert again.code == 0 and "(7 messages: " in again.err


def test_what_cannot_be_gone_on_from(edgeq, model, template, tmp_path, tiny_model):
    path, flags = tmp_path / "talk.eqp", ("--template", template, *GREEDY)
    assert edgeq("chat", model, "--session", path, *flags, stdin="").code == 0 and not path.exists(), "nothing said"
    edgeq("chat", model, "--session", path, *flags, stdin="one\n")
    content = path.read_bytes()
    convert(tiny_model, tmp_path / "other.eqf", "Q4_0")
    result = edgeq("chat", tmp_path / "other.eqf", "--session", path, *flags, stdin="two\n")
    assert result.code == 2 and "was made with another model (tiny.eqf)" in result.err and result.err.count("\n") == 1
    path.write_bytes(content[:-1])
    result = edgeq("chat", model, "--session", path, *flags, stdin="two\n")
    assert result.code == 2 and f"edgeq: {path}: " in result.err and "make it again" in result.err
    path.write_text(json.dumps([]))
    result = edgeq("run", model, "two", "--prefix", path, *flags)
    assert result.code == 2 and "is not an .eqp file: `edgeq prefix` makes one" in result.err
    (tmp_path / "s.txt").write_text("Once upon")
    edgeq("prefix", model, "--raw", "--prompt", tmp_path / "s.txt", "-c", 200)
    result = edgeq("chat", model, "--session", tmp_path / "s.eqp", *flags, stdin="two\n")
    assert result.code == 2 and "is not a conversation that --session saved" in result.err
    assert edgeq("prefix", model, "--prompt", tmp_path / "none.txt").code == 2


def test_prefixes_in_python(model, tmp_path):
    path = tmp_path / "a.eqp"
    with load(model, threads=1, context=200) as one:
        prompt = one.tokenizer.encode("Once upon a time there was a little dog.")
        assert one.save_prefix(path, prompt, {"of": "a dog"}) == len(prompt)
        expected = one.generate([*prompt, 5], 8, temperature=1.0, seed=3).text
    with load(model, threads=1, context=200) as other:
        assert other.load_prefix(path) == {"of": "a dog"}
        answer = other.generate([*prompt, 5], 8, temperature=1.0, seed=3)
        assert answer.text == expected and answer.timings.cached_tokens == len(prompt)


@pytest.mark.parametrize("about", [{"system": 5}, {"system": {"a": 1}}, {"text": []}, {"text": None}])
def test_what_a_file_says_of_its_text_must_be_text(edgeq, model, tmp_path, about):
    with load(model, context=200, threads=1) as loaded:
        loaded.save_prefix(tmp_path / "p.eqp", "Once upon", {key: "?" * 9 for key in about})
    content = (tmp_path / "p.eqp").read_bytes()
    length = int.from_bytes(content[12:20], "little")
    header = json.loads(content[24 : 24 + length]) | {"about": about}
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(text) == length, "the file keeps its bytes"
    sealed = content[:20] + zlib.crc32(text).to_bytes(4, "little") + text + content[24 + length :]
    (tmp_path / "p.eqp").write_bytes(sealed)
    result = edgeq("run", model, "x", "--prefix", tmp_path / "p.eqp", *GREEDY)
    assert result.code == 2 and "says of its text what is none" in result.err, result.err
