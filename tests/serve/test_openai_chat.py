"""POST /v1/chat/completions and /v1/completions, over models that count."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from counting import counting_model
from serving import events, hello, slow_model, wait_until

import edgeq
from edgeq.engine.model import Model
from edgeq.quantize.pipeline import convert

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def joined(chunks, index=0):
    """The text of a streamed chat's choice."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_whole_answer(served):
    answer = served.post(CHAT, **hello()).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": ";<=", "refusal": None}
    assert choice["finish_reason"] == "length" and answer["model"] == "counting"
    assert answer["usage"] == {
        "prompt_tokens": len("u:a|a:"),
        "completion_tokens": 3,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": answer["timings"]["cache_n"]},
    }
    assert answer["timings"]["predicted_n"] == 3


def test_a_stream_says_the_same(served):
    whole = served.post(CHAT, **hello()).json()["choices"][0]
    answer = served.post(CHAT, **hello(stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = events(answer.text)
    assert done == "[DONE]" and last["choices"] == [] and last["usage"]["completion_tokens"] == 3
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert joined(chunks) == whole["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert all(chunk["usage"] is None for chunk in chunks) and len({chunk["id"] for chunk in chunks}) == 1
    assert "usage" not in events(served.post(CHAT, **hello(stream=True)).text)[0]


def test_the_second_time_a_prompt_is_cached(served):
    served.post(CHAT, **hello())
    assert served.post(CHAT, **hello()).json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 5


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_its_length(served, limit):
    fields = {**hello(), "max_tokens": None, limit: 2}
    assert served.post(CHAT, **fields).json()["choices"][0]["message"]["content"] == ";<"


@pytest.mark.parametrize("stop", ["=>", ["zz", "=>", ""]])
@pytest.mark.parametrize("stream", [False, True])
def test_stop(served, stop, stream):
    answer = served.post(CHAT, **hello(max_tokens=20, stop=stop, stream=stream))
    if stream:
        chunks = events(answer.text)[:-1]
        assert joined(chunks) == ";<" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        choice = answer.json()["choices"][0]
        assert choice["message"]["content"] == ";<" and choice["finish_reason"] == "stop"


def test_several_choices(served):
    answer = served.post(CHAT, **hello(n=3, seed=5, temperature=1)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] == 6 and answer["usage"]["completion_tokens"] == 9
    chunks = events(served.post(CHAT, **hello(n=3, seed=5, temperature=1, stream=True)).text)[:-1]
    for choice in answer["choices"]:
        assert joined(chunks, choice["index"]) == choice["message"]["content"]
    for i, choice in enumerate(answer["choices"]):
        alone = served.post(CHAT, **hello(seed=5 + i, temperature=1)).json()["choices"][0]
        assert alone["message"]["content"] == choice["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(served, stream):
    answer = served.post(CHAT, **hello(logprobs=True, top_logprobs=2, stream=stream))
    if stream:
        found = [c["logprobs"] for one in events(answer.text)[:-1] for c in one["choices"] if c["logprobs"]]
        content = [token for one in found for token in one["content"]]
    else:
        content = answer.json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content] == [";", "<", "="] and content[0]["bytes"] == [ord(";")]
    assert all(-1 < token["logprob"] < 0 and len(token["top_logprobs"]) == 2 for token in content)
    assert content[0]["top_logprobs"][0]["token"] == ";"


def test_an_answer_that_has_begun_goes_on(served):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcd "}]
    answer = served.post(CHAT, **hello(messages=talk)).json()
    assert answer["choices"][0]["message"]["content"] == '!"#', "after the space, which nothing strips"
    assert answer["usage"]["prompt_tokens"] == len("u:a|a:bcd ")
    talk[1]["content"] = [{"type": "text", "text": "bcd "}]
    assert served.post(CHAT, **hello(messages=talk)).json()["usage"]["prompt_tokens"] == 10
    talk[1]["content"] = [{"type": "refusal", "refusal": "no"}]
    assert served.post(CHAT, **hello(messages=talk)).status_code == 400


@pytest.mark.parametrize("goes_on", [True, False])
def test_how_the_prompt_ends_may_be_said(served, goes_on):
    talk = hello()["messages"] + [{"role": "assistant", "content": "bcd"}] * goes_on
    plain = served.post(CHAT, **hello(messages=talk)).json()["choices"]
    said = {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}
    assert served.post(CHAT, **hello(messages=talk, **said)).json()["choices"] == plain
    for name, value in said.items():
        answer = served.post(CHAT, **hello(messages=talk, **{name: not value}))
        assert answer.status_code == 400 and answer.json()["error"]["param"] == name
    both = served.post(CHAT, **hello(messages=talk, add_generation_prompt=True, continue_final_message=True))
    assert both.status_code == 400 and "exclude each other" in both.text


def test_a_template_that_leaves_no_answer_open(start):
    served = start({"m": lambda say: with_template("{% for m in messages[:1] %}{{ m.content }}{% endfor %}")})
    wait_until(lambda: served.roster.ready)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    answer = served.post(CHAT, **hello(messages=talk))
    assert answer.status_code == 400 and "leaves no answer open" in answer.json()["error"]["message"]


def with_template(source: str) -> Model:
    model = counting_model()
    return Model(model.file, model.session, chat_template=source)


def test_variables_of_the_template(start):
    served = start({"m": lambda say: with_template("{{ reasoning_effort }}{{ more }}")})
    wait_until(lambda: served.roster.ready)
    fields = hello(reasoning_effort="low", chat_template_kwargs={"more": "abc"}, max_tokens=1)
    assert served.post(CHAT, **fields).json()["choices"][0]["message"]["content"] == "d"


def test_a_model_without_a_template(start):
    served = start({"m": lambda say: counting_model(chat_template=None)})
    wait_until(lambda: served.roster.ready)
    answer = served.post(CHAT, **hello())
    assert answer.status_code == 400 and "/v1/completions" in answer.json()["error"]["message"]


def test_a_prompt_that_is_too_long(served):
    answer = served.post(CHAT, messages=[{"role": "user", "content": "x" * 70}])
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    assert "75 tokens" in answer.json()["error"]["message"] and "64 tokens" in answer.json()["error"]["message"]
    answer = served.post(CHAT, messages=[{"role": "user", "content": "x" * 70}], stream=True)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 100}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"seed": -7}, "seed"),
        ({"logit_bias": {"--5": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "someone", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"model": 5}, "model"),
    ],
)
def test_what_is_refused_by_name(served, fields, param):
    answer = served.post(CHAT, **{**hello(), **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["type"] == "invalid_request_error"
    assert error["param"].startswith(param) or param in error["message"]


def test_what_changes_nothing_is_passed_over(served):
    fields = {
        "user": "me",
        "metadata": {"a": 1},
        "store": False,
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "top_k": -1,
        "seed": -1,
        "xyzzy": {"a": [1]},
        "stop": None,
    }
    assert served.post(CHAT, **hello(**fields)).json()["choices"][0]["message"]["content"] == ";<="


def test_limits_as_llama_cpp_names_them(served):
    """-1 is none: the context's end."""
    told = {"temperature": 0, "messages": [{"role": "user", "content": "p"}]}
    whole = served.post(CHAT, **told).json()["choices"][0]
    for limit in ({"max_tokens": -1}, {"n_predict": -1}, {"max_completion_tokens": -1, "max_tokens": 3}):
        assert served.post(CHAT, **told, **limit).json()["choices"][0] == whole, limit
    assert served.post(CHAT, **told, n_predict=2).json()["usage"]["completion_tokens"] == 2


def test_parts_of_text_and_roles(served):
    talk = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert served.post(CHAT, **hello(messages=talk)).json()["usage"]["prompt_tokens"] == len("s:s|u:a\nb|a:")
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]
    answer = served.post(CHAT, **hello(messages=picture))
    assert answer.status_code == 400 and "reads text alone" in answer.json()["error"]["message"]


def test_an_error_within_a_stream(start):
    model = counting_model(context=64)
    evaluate = model.session.eval

    def fail(tokens, all_logits=False):
        if tokens[-1] == ord("<"):
            raise RuntimeError("secret")
        return evaluate(tokens, all_logits)

    model.session.eval = fail
    served = start({"m": lambda say: model})
    wait_until(lambda: served.roster.ready)
    answer = served.post(CHAT, **hello(stream=True, max_tokens=9))
    *chunks, error = events(answer.text)
    assert joined(chunks) == ";<" and error["error"]["type"] == "api_error" and "secret" not in answer.text
    assert served.post(CHAT, **hello(max_tokens=9)).status_code == 500
    assert served.post(CHAT, **hello(max_tokens=1)).status_code == 200, "the model is still there"


def test_completions(served):
    fields = {"prompt": "abc", "max_tokens": 3, "temperature": 0}
    answer = served.post(COMPLETIONS, **fields).json()
    assert answer["object"] == "text_completion" and answer["choices"][0]["text"] == "def"
    assert [
        choice["text"] for choice in served.post(COMPLETIONS, **{**fields, "prompt": ["a", "p"]}).json()["choices"]
    ] == [
        "bcd",
        "qrs",
    ]
    for prompt in ([97, 98], [[97, 98]]):
        assert served.post(COMPLETIONS, **{**fields, "prompt": prompt}).json()["choices"][0]["text"] == "cde"
    assert served.post(COMPLETIONS, prompt="a", temperature=0).json()["usage"]["completion_tokens"] == 16
    assert served.post(COMPLETIONS, prompt="a", temperature=0, n_predict=2).json()["choices"][0]["text"] == "bc"
    chunks = events(served.post(COMPLETIONS, **fields, stream=True).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "def" and chunks[-1] == "[DONE]"


@pytest.mark.parametrize("prompt", ["", [], [[]], [1.5], ["a", 5], [True], [300], [-1], {"a": 1}, 5])
def test_prompts_that_are_none(served, prompt):
    assert served.post(COMPLETIONS, prompt=prompt).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs(served, stream):
    """What programs that measure the likelihood of texts ask for."""
    fields = {"prompt": [97, 98, 99], "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    answer = served.post(COMPLETIONS, **fields, stream=stream)
    choices = [chunk["choices"][0] for chunk in events(answer.text)[:-1]] if stream else answer.json()["choices"]
    assert "".join(choice["text"] for choice in choices) == "abcd"

    def all_of(name):
        return [value for choice in choices for value in choice["logprobs"][name]]

    assert all_of("tokens") == ["a", "b", "c", "d"] and all_of("text_offset") == [0, 1, 2, 3]
    assert all_of("token_logprobs")[0] is None and all_of("top_logprobs")[0] is None
    assert all(-1 < value < 0 for value in all_of("token_logprobs")[1:])
    assert [list(top) for top in all_of("top_logprobs")[1:]] == [["b"], ["c"], ["d"]]
    scored = served.roster.entries["counting"].engine.model.score([97, 98, 99])
    assert all_of("token_logprobs")[1:3] == pytest.approx([float(value) for value in scored])


def test_echo_without_a_further_token(served):
    fields = {"prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 0}
    choice = served.post(COMPLETIONS, **fields).json()["choices"][0]
    assert choice["text"] == "abc" and len(choice["logprobs"]["tokens"]) == 3


def test_a_client_that_leaves_ends_the_work(served):
    engine = served.roster.entries["slow"].engine
    session = engine.model.session
    for stream in (True, False):
        before = len(session.evaluated)
        body = json.dumps(hello(model="slow", stream=stream, max_tokens=1500)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
            client.sendall(head + body)
            wait_until(lambda before=before: len(session.evaluated) > before + 10)
        wait_until(lambda: engine.running == 0, 2)
        before = len(session.evaluated)
        time.sleep(0.05)
        assert len(session.evaluated) == before < 1000


def test_one_that_waits_and_leaves_is_never_begun(start):
    served = start({"slow": lambda say: slow_model(context=400)}, most_waiting=1, at_once=1)
    wait_until(lambda: served.roster.ready)
    engine = served.roster.entries["slow"].engine
    with httpx.stream("POST", f"{served.url}{CHAT}", json=hello(stream=True, max_tokens=300)) as first:
        assert first.status_code == 200
        wait_until(lambda: engine.running == 1)
        with httpx.stream("POST", f"{served.url}{CHAT}", json=hello(stream=True)) as second:
            assert second.status_code == 200, "headers come at once"
            assert engine.waiting == 1
            full = served.post(CHAT, **hello())
            assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
            assert full.json()["error"]["code"] == "queue_full"
            assert served.http.get("/health").status_code == 200
        wait_until(lambda: engine.waiting == 0)
        assert engine.running == 1
    wait_until(lambda: engine.running == 0, 1)
    assert served.post(CHAT, **hello()).status_code == 200


def test_many_at_once_are_told_what_each_is_told_alone(start, tiny_model, tmp_path):
    """Text, probabilities and all, of requests that share passes."""
    convert(tiny_model, tmp_path / "tiny.eqf", "Q8_0")
    served = start({"tiny": lambda say: edgeq.load(tmp_path / "tiny.eqf", threads=2)})
    wait_until(lambda: served.roster.ready)

    def told(number):
        fields = {"prompt": f"Once upon a time, {number} ", "max_tokens": 24, "seed": number, "logprobs": 2}
        return served.post("/v1/completions", **fields).json()["choices"]

    alone = [told(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(told, range(8))) == alone


def test_a_heartbeat_where_nothing_comes(served, monkeypatch):
    monkeypatch.setattr("edgeq.serve.openai_chat.HEARTBEAT_S", 0.004)
    text = served.post(CHAT, **hello(model="slow", stream=True)).text
    assert ": waiting\n\n" in text and events(text)[-1] == "[DONE]"


def test_many_at_once_say_what_each_says_alone(served):
    alone = {i: served.post(CHAT, **hello(seed=i, temperature=1, max_tokens=8)).json() for i in range(8)}
    found = {}

    def ask(i):
        found[i] = httpx.post(f"{served.url}{CHAT}", json=hello(seed=i, temperature=1, max_tokens=8), timeout=30).json()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert found[i]["choices"] == alone[i]["choices"]


BROKEN = {
    "no JSON": b"{",
    "empty": b"",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "half UTF-8": b'{"messages": [{"role": "user", "content": "\xe2\x82"}]}',
    "not UTF-8": b'{"messages": "\xff"}',
    "half a surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "deep list": b"[" * 100_000,
    "deep in a field": b'{"messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep and unknown": b'{"x": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "a long number": b'{"messages": [], "max_tokens": ' + b"9" * 5000 + b"}",
    "infinite": b'{"messages": [{"role":"user","content":"a"}], "temperature": 1e999}',
    "NaN": b'{"messages": [{"role":"user","content":"a"}], "temperature": NaN}',
    "a NUL": b'{"messages": [{"role":"user","content":"a\\u0000"}], "max_tokens": 1}',
    "messages of numbers": b'{"messages": [1, 2]}',
    "content of lists": b'{"messages": [{"role": "user", "content": [[["a"]]]}]}',
    "a large seed": b'{"messages": [{"role":"user","content":"a"}], "max_tokens": 1, "seed": 1' + b"0" * 30 + b"}",
    "a large top_k": b'{"messages": [{"role":"user","content":"a"}], "max_tokens": 1, "top_k": 1' + b"0" * 30 + b"}",
    "names twice": b'{"messages": 1, "messages": [{"role":"user","content":"a"}], "max_tokens": 1}',
}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_broken_request_is_the_clients_mistake(served, body, path):
    if path == COMPLETIONS:
        body = body.replace(b'"messages": [{"role":"user","content":"a"}]', b'"prompt": "a"')
    answer = served.http.post(path, content=body)
    assert answer.status_code < 500
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


def test_a_body_that_is_too_large(served, monkeypatch):
    monkeypatch.setattr("edgeq.serve.bodies.LARGEST", 1000)
    answer = served.http.post(CHAT, content=b"x" * 2000)
    assert answer.status_code == 413
    answer = served.http.post(CHAT, content=iter([b"x" * 600] * 3))  # without a length
    assert answer.status_code == 413


def test_a_body_that_does_not_come(served, monkeypatch):
    monkeypatch.setattr("edgeq.serve.bodies.PATIENCE_S", 0.05)

    def slowly():
        yield b'{"messages"'
        time.sleep(0.3)
        yield b": []}"

    assert served.http.post(CHAT, content=slowly()).status_code == 408


def test_paths_and_methods_that_there_are_not(served):
    assert served.http.get("/v1/nothing").json()["error"]["message"] == "GET /v1/nothing: there is no such endpoint"
    told = served.post("/completion").json()["error"]["message"]
    assert told == "POST /completion: there is no such endpoint: /v1/completions does that"
    assert served.http.get(CHAT).status_code == 405
    assert json.loads(served.post("/api/nothing").text).keys() == {"error"}


def test_nothing_of_a_request_is_logged(start, caplog):
    model = counting_model()
    model.session.eval = lambda *a, **k: 1 / 0
    served = start({"m": lambda say: model})
    wait_until(lambda: served.roster.ready)
    talk = [{"role": "user", "content": "a secret"}]
    assert served.post(CHAT, messages=talk).status_code == 500
    assert "ZeroDivisionError at" in caplog.text and "secret" not in caplog.text


def test_how_far_a_prompt_is(start):
    """As llama.cpp's server tells it, where it is asked to."""
    served = start({"slow": lambda say: slow_model(pass_s=0.15, context=4000)})
    wait_until(lambda: served.roster.ready)
    fields = hello(messages=[{"role": "user", "content": "a" * 3000}], max_tokens=1, stream=True)
    streams = [events(served.post(CHAT, **fields, return_progress=wanted).text)[:-1] for wanted in (True, False)]
    told = [[chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk] for chunks in streams]
    assert told[1] == [] and any(0 < one["processed"] < one["total"] for one in told[0])
    assert {one["total"] for one in told[0]} == {3005} and all(one["time_ms"] > 0 for one in told[0])
