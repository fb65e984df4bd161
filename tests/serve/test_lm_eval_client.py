"""lm-evaluation-harness asks a server by `local-completions`: its scores are those that `edgeq eval` has, item by item.

So many items of each task: EDGEQ_TEST_ITEMS."""

import os
from pathlib import Path

import pytest
from serving import serving, wait_until

from edgeq import convert, load
from edgeq.evaluate.tasks import read_task

ITEMS = int(os.environ.get("EDGEQ_TEST_ITEMS", "3"))


@pytest.mark.parametrize("name", ["hellaswag/hellaswag_val_first400.txt", "piqa/valid.jsonl"])
def test_scores_are_those_of_the_model(tiny_model, shared_data: Path, tmp_path, name):
    completions = pytest.importorskip("lm_eval.models.openai_completions", reason="pip install 'lm_eval[api]'")
    pytest.importorskip("transformers", reason="pip install transformers")
    from lm_eval.api.instance import Instance

    path = tmp_path / "tiny.eqf"
    convert(str(tiny_model), path, "Q8_0")
    items = read_task(shared_data / "tasks" / name, ITEMS).items
    with serving({"tiny": lambda say: load(path)}) as served:
        wait_until(lambda: served.roster.ready, 120)
        client = completions.LocalCompletionsAPI(
            base_url=f"{served.url}/v1/completions",
            model="tiny",
            tokenizer=str(tiny_model),
            add_bos_token=True,  # as the model's tokenizer does
            num_concurrent=1,
        )
        pairs = [(item.prompt, choice) for item in items for choice in item.choices]
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        told = client.loglikelihood(asked, disable_tqdm=True)
    with load(path) as model:
        expected = [one for item in items for one in model.score(item.prompt, item.choices)]
    assert len(told) == len(expected) >= 2 * ITEMS
    assert [value for value, _ in told] == pytest.approx([one.logprob for one in expected], abs=1e-5)
    assert [greedy for _, greedy in told] == [one.greedy for one in expected]
