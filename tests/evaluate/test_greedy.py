import pytest
from counting import counting_model
from random_models import table_model

from edgeq.errors import UsageError
from edgeq.evaluate.greedy import Greedy, Prompt, answer, beginnings, changes, latency, read_prompts
from edgeq.evaluate.texts import Chunk


def test_answers_and_where_they_differ():
    model, other = counting_model(), counting_model(jumps={ord("f"): ord("a")})
    prompts = [Prompt((*b"abc",), "abc"), Prompt((*b"klm",), "klm")]
    before, now = answer(model, prompts, 6), answer(other, prompts, 6)
    assert [one.text for one in before] == ["defghi", "nopqrs"] and [one.text for one in now] == ["defabc", "nopqrs"]
    first, second = changes(prompts, before, now)
    assert (first.prompt, first.reference, first.answer, first.agree) == ("abc", "defghi", "defabc", 3)
    assert not first.same and second.same and first.alike == pytest.approx(0.5)


def test_those_that_changed_most_come_first():
    prompts = [Prompt((i,), str(i)) for i in range(3)]
    before = [Greedy((1, 2, 3, 4), "")] * 3
    now = [Greedy((1, 2, 3, 4), ""), Greedy((9, 9, 9, 9), ""), Greedy((1, 2, 9, 9), "")]
    assert [change.prompt for change in changes(prompts, before, now)] == ["1", "2", "0"]


def test_each_token_is_timed():
    (found,) = answer(table_model(), [Prompt((1, 2), "")], 8)
    assert len(found.seconds) == 6 and all(second > 0 for second in found.seconds)
    times = latency([Greedy((), "", (0.1, 0.2)), Greedy((), "", (0.3,))])
    assert times == pytest.approx({"50": 0.2, "95": 0.29, "99": 0.298})


def test_beginnings_come_from_all_over_the_text():
    chunks = [Chunk(tuple([97 + i] * 20)) for i in range(9)]
    found = beginnings(chunks, table_model(), 3)
    assert [prompt.text for prompt in found] == ["a" * 10, "d" * 10, "g" * 10]


def test_prompts_of_a_file(tmp_path):
    (tmp_path / "p.txt").write_text("Hi\n\nHo\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hi"}\n{"prompt": "Ho"}\n')
    for name in ("p.txt", "p.jsonl"):
        plain = read_prompts(tmp_path / name, table_model())
        assert [(prompt.text, bytes(prompt.ids)) for prompt in plain] == [("Hi", b"Hi"), ("Ho", b"Ho")]
        asked = read_prompts(tmp_path / name, counting_model())
        assert bytes(asked[0].ids) == b"u:Hi|a:", "in a chat, where there is a template"


@pytest.mark.parametrize(
    ("name", "content", "message"), [("p.txt", "\n", "holds no prompt"), ("p.jsonl", "{}", "has no")]
)
def test_mistakes(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_prompts(tmp_path / name, table_model())
