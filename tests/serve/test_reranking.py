"""POST /v1/rerank, in the forms of Jina's and Cohere's APIs."""

import pytest
import sentence_encoder
from serving import serving, wait_until

import edgeq
from edgeq.loading import load

TEXTS = ["abc", "de f", "cd"]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker")
    edgeq.convert(sentence_encoder.write_reranker(folder / "checkpoint"), folder / "m.eqf", "Q8_0")
    load(folder / "m.eqf", threads=1).close()  # which compiles what is missing
    with serving({"m": lambda say: load(folder / "m.eqf", threads=1)}) as served:
        wait_until(lambda: served.roster.ready)
        yield served


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_scores_by_their_order(reranker, path):
    answer = reranker.post(path, model="m", query="ab", documents=TEXTS).json()
    model = reranker.roster.entries["m"].engine.model
    scores = [float(score) for score in model.rerank("ab", TEXTS)]
    order = sorted(range(3), key=lambda i: -scores[i])
    assert answer["results"] == [{"index": i, "relevance_score": scores[i]} for i in order]
    assert answer["model"] == "m" and answer["usage"]["total_tokens"] == model.ranking_timings.tokens


def test_documents_as_objects_and_back(reranker):
    fields = {"query": "ab", "documents": [{"text": text} for text in TEXTS], "top_n": 2, "return_documents": True}
    results = reranker.post("/v1/rerank", **fields).json()["results"]
    assert len(results) == 2
    assert all(one["document"] == {"text": TEXTS[one["index"]]} for one in results)
    assert len(reranker.post("/v1/rerank", query="ab", documents=TEXTS, top_n=9).json()["results"]) == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": "ab"}, "documents"),
        ({"query": "ab", "documents": []}, "documents"),
        ({"query": "ab", "documents": [{"image": "x"}]}, "documents"),
        ({"query": 5, "documents": ["a"]}, "query"),
        ({"query": "ab", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_what_is_refused_by_name(reranker, fields, param):
    answer = reranker.post("/v1/rerank", **fields)
    assert answer.status_code == 400
    assert param in (answer.json()["error"]["param"] or answer.json()["error"]["message"])


def test_a_model_that_is_none(served):
    answer = served.post("/v1/rerank", query="a", documents=["b"])
    assert answer.status_code == 400 and "is no classifier or reranker" in answer.json()["error"]["message"]
