"""A server whose model has a small one guess for it says what it says without."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import wait_until

import edgeq
from edgeq.cli.served import load_served
from edgeq.decode.ngrams import Lookup
from edgeq.engine.drafting import Draft
from edgeq.engine.speculation import Costs

PROMPT = "Once upon a time there was a"


@pytest.fixture
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the clock decides how much is guessed; and the text itself tells nothing."""
    monkeypatch.setattr(Costs, "cost", lambda costs, rows: 1.0)
    monkeypatch.setattr(Draft, "cost", lambda draft, costs: 0.0)
    monkeypatch.setattr("edgeq.engine.speculation.GAIN", 1.0)
    monkeypatch.setattr(Lookup, "guess", lambda lookup, tokens, count: ([], 0))


def test_a_draft_changes_no_answer(start, tiny_model, tmp_path, always_worth_it):
    for kind in ("Q8_0", "Q2_K"):
        edgeq.convert(tiny_model, tmp_path / f"{kind}.eqf", kind)
    model, small = (str(tmp_path / f"{kind}.eqf") for kind in ("Q8_0", "Q2_K"))
    served = start(
        {
            "plain": lambda say: load_served(model, {"threads": 1, "context": 256}, say),
            "drafted": lambda say: load_served(model, {"threads": 1, "context": 256, "draft": small}, say),
        }
    )
    wait_until(lambda: served.roster.ready, 60)
    assert served.post("/models/load", model="drafted").status_code == 200

    def told(name, **fields):
        answer = served.post("/v1/completions", model=name, prompt=PROMPT, max_tokens=32, logprobs=2, **fields).json()
        return answer["choices"], answer["timings"]

    asked = [{"temperature": 0}, {"temperature": 1, "seed": 4}, {"temperature": 1, "top_k": 0, "seed": 5}]
    plain = [told("plain", **fields) for fields in asked]
    drafted = [told("drafted", **fields) for fields in asked]
    assert [choices for choices, _ in drafted] == [choices for choices, _ in plain]
    for (_, without), (_, with_) in zip(plain, drafted, strict=True):
        assert without["draft_n"] == without["draft_n_accepted"] == 0
        assert 0 < with_["draft_n_accepted"] <= with_["draft_n"]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda fields: told("drafted", **fields)[0], asked))
    assert together == [choices for choices, _ in plain]
