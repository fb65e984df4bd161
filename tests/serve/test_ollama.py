"""Ollama's API."""

import json

import pytest


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def ask(**more):
    return {
        "model": "counting",
        "messages": [{"role": "user", "content": "a"}],
        "options": {"temperature": 0, "num_predict": 3},
        **more,
    }


def test_a_chat_in_lines(served):
    answer = served.post("/api/chat", **ask())
    assert answer.headers["content-type"] == "application/x-ndjson"
    *parts, last = lines(answer)
    assert "".join(part["message"]["content"] for part in parts) == ";<=" and not any(part["done"] for part in parts)
    assert last["done"] and last["done_reason"] == "length" and last["message"] == {"role": "assistant", "content": ""}
    assert last["eval_count"] == 3 and last["prompt_eval_count"] == 6
    assert last["total_duration"] >= last["eval_duration"] > 0 and isinstance(last["total_duration"], int)


def test_a_chat_as_a_whole(served):
    answer = served.post("/api/chat", **ask(stream=False, keep_alive="5m")).json()
    assert answer["message"]["content"] == ";<=" and answer["done"] and answer["model"] == "counting"


def test_generate(served):
    options = {"temperature": 0, "num_predict": 3}
    fields = {"model": "counting:latest", "stream": False, "options": options}
    assert served.post("/api/generate", **fields, prompt="a").json()["response"] == ";<="
    assert served.post("/api/generate", **fields, prompt="a", raw=True).json()["response"] == "bcd"
    answer = served.post("/api/generate", **fields, prompt="a", system="s").json()
    assert answer["prompt_eval_count"] == len("s:s|u:a|a:")
    assert (
        "".join(
            one["response"] for one in lines(served.post("/api/generate", **{**fields, "stream": True}, prompt="a"))
        )
        == ";<="
    )


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_one_that_says_nothing_has_the_model_loaded(served, path):
    answer = served.post(path, model="counting").json()
    assert answer["done"] and answer["done_reason"] == "load"


def test_options(served):
    options = {"temperature": 0, "num_predict": -1, "stop": ["?"], "num_ctx": 4096, "num_gpu": 1, "repeat_penalty": 1.0}
    answer = served.post("/api/chat", **ask(stream=False, options=options)).json()
    assert answer["message"]["content"] == ";<=>" and answer["done_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format": 5}, "format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"think": True}, "think"),
        ({"options": {"tfs_z": 0.5}}, "tfs_z"),
        ({"options": {"temperature": -1}}, "temperature"),
        ({"options": {"num_predict": "x"}}, "max_tokens"),
        ({"options": {"stop": 5}}, "stop"),
        ({"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "images"),
        ({"messages": 5}, "messages"),
        ({"model": 5}, "model"),
    ],
)
def test_what_is_refused_by_name(served, fields, named):
    answer = served.post("/api/chat", **ask(**fields))
    assert answer.status_code == 400 and answer.json().keys() == {"error"} and named in answer.json()["error"]


def test_a_model_that_there_is_not(served):
    answer = served.post("/api/chat", **ask(model="other"))
    assert answer.status_code == 404 and answer.json() == {
        "error": "there is no model 'other': here are counting, slow"
    }


def test_what_is_told_of_models(served):
    rows = served.http.get("/api/tags").json()["models"]
    assert [row["name"] for row in rows] == ["counting", "slow"] and len(rows[0]["digest"]) == 64
    assert rows[0]["details"]["family"] == "llama" and rows[0]["details"]["quantization_level"] == "Q4_0"
    assert [row["model"] for row in served.http.get("/api/ps").json()["models"]] == ["counting", "slow"]
    shown = served.post("/api/show", model="counting:latest").json()
    assert "completion" in shown["capabilities"] and shown["model_info"]["llama.context_length"] == 64
    assert shown["template"].startswith("{% for")
    assert served.post("/api/show").status_code == 400 and served.post("/api/show", model="x").status_code == 404
    assert served.http.get("/api/version").json()["version"]
