"""POST /tokenize, /detokenize, /apply-template and /v1/embeddings."""

import base64

import numpy as np
import pytest
from serving import serving, wait_until

from edgeq.loading import load
from edgeq.quantize.pipeline import convert


def test_tokenize(served):
    assert served.post("/tokenize", content="abc").json() == {"tokens": [97, 98, 99], "count": 3, "max_model_len": 64}
    assert served.post("/tokenize", prompt="abc").json()["tokens"] == [97, 98, 99]
    named = {"content": "a<|im_end|>"}
    assert len(served.post("/tokenize", **named).json()["tokens"]) == 2
    assert len(served.post("/tokenize", **named, parse_special=False).json()["tokens"]) == 11
    pieces = served.post("/tokenize", content="a€", with_pieces=True).json()["tokens"]
    assert pieces[0] == {"id": 97, "piece": "a"} and [piece["piece"] for piece in pieces[1:]] == [[226], [130], [172]]
    assert served.post("/tokenize").status_code == 400


def test_detokenize(served):
    assert served.post("/detokenize", tokens=[97, 98]).json()["content"] == "ab"
    assert served.post("/detokenize", tokens=[]).json()["content"] == ""
    for wrong in ([300], [-1], ["a"], 5):
        assert served.post("/detokenize", tokens=wrong).status_code == 400


def test_apply_template(served):
    talk = [{"role": "user", "content": "a"}]
    assert served.post("/apply-template", messages=talk).json() == {"prompt": "u:a|a:"}
    begun = [*talk, {"role": "assistant", "content": "b"}]
    assert served.post("/apply-template", messages=begun).json() == {"prompt": "u:a|a:b"}
    assert served.post("/apply-template", messages=[]).status_code == 400


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    """A server of the bundled model."""
    path = tmp_path_factory.mktemp("served") / "tiny.eqf"
    convert(str(tiny_model), path, "Q8_0")
    with serving({"tiny": lambda say: load(path)}) as served:
        wait_until(lambda: served.roster.ready, 120)
        yield served


def test_embeddings(tiny):
    answer = tiny.post("/v1/embeddings", input=["Once upon a time", "The end"]).json()
    assert [one["index"] for one in answer["data"]] == [0, 1] and answer["model"] == "tiny"
    model = tiny.roster.entries["tiny"].engine.model
    expected = model.embed(["Once upon a time", "The end"])
    assert np.array_equal(np.array([one["embedding"] for one in answer["data"]], np.float32), expected)
    assert answer["usage"]["prompt_tokens"] == sum(
        len(model.tokenizer.encode(t)) for t in ("Once upon a time", "The end")
    )
    coded = tiny.post("/v1/embeddings", input="Once upon a time", encoding_format="base64").json()["data"][0][
        "embedding"
    ]
    assert np.array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), expected[0])
    old = tiny.post("/api/embed", model="tiny", input="Once upon a time").json()
    assert np.array_equal(np.array(old["embeddings"], np.float32), expected[:1]) and old["prompt_eval_count"] > 0


def test_token_ids_are_embedded_as_they_are(tiny):
    ids = tiny.roster.entries["tiny"].engine.encode("Once upon a time")
    wanted = tiny.post("/v1/embeddings", input="Once upon a time").json()
    for given in (ids, [ids], [ids, "The end"]):
        answer = tiny.post("/v1/embeddings", input=given).json()
        assert answer["data"][0] == wanted["data"][0] and len(answer["data"]) == (2 if "The end" in given else 1)
    assert tiny.post("/v1/embeddings", input=ids).json()["usage"] == wanted["usage"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": "a", "dimensions": 7}, "dimensions is not supported"),
        ({"input": []}, "input must be a text"),
        ({"input": [[1, "2"]]}, "input must be a text"),
        ({"input": [[]]}, "input must be a text"),
        ({"input": ["a", [1], 5]}, "input must be a text"),
        ({"input": [5, 99999]}, "token 99999 is not in the model's vocabulary of 2048"),
        ({"input": [5] * 3000}, "tokens"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "word " * 3000}, "tokens"),
    ],
)
def test_what_cannot_be_embedded(tiny, fields, said):
    answer = tiny.post("/v1/embeddings", **fields)
    assert answer.status_code == 400 and said in answer.text


def test_a_long_text_is_cut_where_that_is_asked_for(tiny):
    long = {"model": "tiny", "input": "word " * 3000}
    assert tiny.post("/api/embed", **long).status_code == 200
    assert tiny.post("/api/embed", **long, truncate=False).status_code == 400


def test_the_bundled_model_writes_what_it_writes_alone(tiny):
    model = tiny.roster.entries["tiny"].engine.model
    answer = tiny.post("/v1/completions", prompt="Once upon a time", max_tokens=12, seed=3).json()
    assert answer["choices"][0]["text"] == model.generate("Once upon a time", 12, seed=3).text
