import json
import random
import re
from math import exp

import pytest
from counting import counting_model
from random_models import table_model

from edgeq.errors import UsageError
from edgeq.evaluate.task_scores import flips, score_task
from edgeq.evaluate.tasks import Item, Task, _plain, read_task

OWN = {"prompt": "Two and two is", "choices": [" four", " five"], "answer": 0}
PIQA = {"goal": "Dry hands", "sol1": "use a towel", "sol2": "use soup"}


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def only(path):
    (item,) = read_task(path).items
    return item


def test_layouts(tmp_path):
    path = tmp_path / "t.jsonl"
    assert only(write(path, OWN)) == Item("Two and two is", (" four", " five"), 0)
    assert only(write(path, {"prompt": "The end", "target": " is near"})) == Item("The end", (" is near",))
    assert only(write(path, {"text": "It was the best of times\n"})) == Item("It was the best of", (" times",))
    hellaswag = {"activity_label": "Rain", "ctx_a": "It rains.", "ctx_b": "the man", "ctx": "", "label": "1"}
    found = only(write(path, {**hellaswag, "endings": ["runs  off [title] quickly.", "[step] stays."]}))
    assert found == Item("Rain: It rains. The man", (" runs off. quickly.", "  stays."), 1)


def test_labels_may_lie_beside(tmp_path):
    path = write(tmp_path / "valid.jsonl", PIQA, PIQA)
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    task = read_task(path)
    assert task.name == tmp_path.name, "a file called valid says nothing"
    assert [item.answer for item in task.items] == [1, 0]
    assert task.items[0] == Item("Question: Dry hands\nAnswer:", (" use a towel", " use soup"), 1)
    assert len(read_task(path, 1).items) == 1


def test_hellaswag_as_text(tmp_path):
    (tmp_path / "h.txt").write_text("Rain: It rains.\n3\na b.\nc.\nd.\ne.\n")
    assert only(tmp_path / "h.txt") == Item("Rain: It rains.", (" a b.", " c.", " d.", " e."), 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "t.jsonl: holds no item"),
        ([{"question": "?"}], "t.jsonl:1: is of no known layout"),
        ([PIQA], "t.jsonl:1: is of no known layout"),
        ([OWN, {**OWN, "answer": 2}], "t.jsonl:2: is not as its layout says: the answer 2 is none of 2"),
        ([{**OWN, "choices": [" four"]}], "t.jsonl:1: .*give two choices or more"),
        ([{**OWN, "choices": [1, 2]}], "t.jsonl:1: .*prompt and choices must be texts"),
        ([{**OWN, "choices": None}], "t.jsonl:1: is not as its layout says"),
        ([{**OWN, "answer": float("inf")}], "t.jsonl:1: is not as its layout says"),
        ([OWN, {"text": "a b"}], "t.jsonl: mixes choices and targets"),
    ],
)
def test_mistakes(tmp_path, lines, message):
    with pytest.raises(UsageError, match=message):
        read_task(write(tmp_path / "t.jsonl", *lines))


def test_marks_are_left_out_in_as_many_steps_as_there_are_characters():
    rng = random.Random(1)
    for text in ("".join(rng.choices("[]a\n", k=12)) for _ in range(500)):
        assert _plain(f"x{text}x") == re.sub(r"\[.*?\]", "", f"x{text}x"), text
    assert len(_plain("[" * 300_000)) == 300_000


@pytest.mark.parametrize(
    ("content", "message"), [("a\n0\nb\n", "has 3 lines"), ("a\n4\nb\nc\nd\ne", "h.txt:2: must be")]
)
def test_mistakes_of_text(tmp_path, content, message):
    (tmp_path / "h.txt").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_task(tmp_path / "h.txt")


def random_task(count=24):
    words = ["red", "blue", "hello there", "no", "perhaps so", "yes"]
    items = [Item(f"item {i}", (" " + words[i % 6], " " + words[(i + 1 + i // 6) % 6]), i % 2) for i in range(count)]
    return Task("random", tuple(items))


def test_choices_are_scored_by_sum_and_by_character():
    model, task = table_model(), random_task()
    found = score_task(model, task)
    for item, score, right in zip(task.items, found.items, found.right, strict=True):
        sums = [model.score(item.prompt, [choice])[0].logprob for choice in item.choices]
        assert score.logprobs == pytest.approx(sums)
        assert score.choice == (0 if sums[0] > sums[1] else 1)
        lengths = [len(choice) - 1 for choice in item.choices]
        assert score.normalized == (0 if sums[0] / lengths[0] > sums[1] / lengths[1] else 1)
        assert right == (score.choice == item.answer)
    assert found.accuracy.value == sum(found.right) / 24 and 0 < found.accuracy.value < 1
    assert found.normalized is not None and found.normalized != found.accuracy


def test_targets_are_right_where_they_are_likeliest():
    found = score_task(counting_model(), Task("t", (Item("abc", ("def",)), Item("abc", ("dex",)))))
    assert found.right == (True, False) and found.normalized is None
    logs = [score.logprobs[0] for score in found.items]
    assert found.perplexity is not None
    assert found.perplexity.value == pytest.approx(exp(-sum(logs) / 2))


def test_flips_both_ways():
    task = random_task(60)
    before, now = score_task(table_model(), task), score_task(table_model(noise=1.0), task)
    found = flips(now, before)
    assert found.lost and found.gained
    assert all(before.right[i] and not now.right[i] for i in found.lost)
    assert sum(now.right) - sum(before.right) == len(found.gained) - len(found.lost)
    assert flips(before, before).chance == 1.0
