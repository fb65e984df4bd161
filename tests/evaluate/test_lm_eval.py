"""lm-evaluation-harness finds the same as is found here, item by item."""

import json
from types import SimpleNamespace

import pytest
from random_models import table_model

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install lm_eval to compare with it")

import lm_eval
from lm_eval import utils

from edgeq.evaluate.lm_eval import Edgeq, rolling
from edgeq.evaluate.task_scores import score_task
from edgeq.evaluate.tasks import read_task

ITEMS = [
    {"prompt": "The sun is", "choices": [" hot", " a cold one", " green"], "answer": 0},
    {"prompt": "Two and two ", "choices": ["four", "five", "a hundred"], "answer": 0},
    {"prompt": "Grass", "choices": [" grows", " sings", " is"], "answer": 2},
]


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def test_a_task_of_the_harness_is_ours(tmp_path):
    """Through all of it: its own loader, requests, filters and metrics."""
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, ITEMS)))
    config = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    model = table_model()
    theirs = lm_eval.simple_evaluate(Edgeq(model), tasks=[config], bootstrap_iters=0)
    ours = score_task(model, read_task(path))
    assert theirs["results"]["mine"]["acc,none"] == ours.accuracy.value
    samples = sorted(theirs["samples"]["mine"], key=lambda sample: sample["doc_id"])
    for sample, item in zip(samples, ours.items, strict=True):
        assert [float(pair[0][0]) for pair in sample["resps"]] == pytest.approx(item.logprobs, abs=1e-12)


def test_likelihoods():
    model = table_model()
    harness = Edgeq(model)
    pairs = [("ab", "cd"), ("ab", " x"), ("ab ", "cd"), ("", "cd"), ("a" * 150, "bc")]
    found = harness.loglikelihood(requests(*pairs))
    assert found[:2] == [(one.logprob, one.greedy) for one in model.score("ab", ["cd", " x"])]
    assert found[2][0] == model.score("ab ", ["cd"])[0].logprob
    assert found[3][0] == model.score([harness.prefix_token_id], [[*b"cd"]])[0].logprob
    assert found[4][0] == model.score([97] * 127, [[*b"bc"]])[0].logprob, "what is too long loses its beginning"


def test_windows_are_theirs():
    for length in (1, 5, 7, 8, 16, 17, 30):
        ids = [*range(100, 100 + length)]
        theirs = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, 0, 8, 1))
        assert list(rolling(ids, 0, 8)) == list(theirs)


def test_whole_texts():
    model = table_model()
    harness = Edgeq(model)
    text = "".join(chr(97 + i * i % 26) for i in range(200))
    found, long = harness.loglikelihood_rolling(requests(("hello",), (text,)))
    ids, short = model.tokenizer.encode(text), model.tokenizer.encode("hello")
    assert found == pytest.approx(float(model.score([harness.prefix_token_id, *short]).sum()), rel=1e-5)
    first = model.score([harness.prefix_token_id], [ids[:128]])[0].logprob
    rest = model.score(ids[len(ids) - 129 : 128], [ids[128:]])[0].logprob
    assert long == pytest.approx(first + rest)


def test_answers():
    model = table_model()
    text = model.generate("abc", 12, temperature=0.0, repetition_penalty=1.0).text
    plain, cut = Edgeq(model).generate_until(
        requests(("abc", {"until": [], "max_gen_toks": 12}), ("abc", {"until": text[4:6], "max_gen_toks": 12}))
    )
    assert (plain, cut) == (text, text[:4])
