"""The clients that people have, as they come: each skips where it is not installed."""

import pytest
from counting import counting_model
from serving import wait_until

from edgeq.serve.guard import Rules

TALK = [{"role": "user", "content": "a"}]


@pytest.fixture
def locked(start):
    """A server that wants a key."""
    served = start({"counting": lambda say: counting_model()}, Rules(keys=["secret"]))
    wait_until(lambda: served.roster.ready)
    return served


def test_openai(locked):
    openai = pytest.importorskip("openai", reason="pip install openai")
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key="secret", max_retries=0) as client:
        answer = client.chat.completions.create(model="counting", messages=TALK, max_tokens=3, temperature=0)
        assert answer.choices[0].message.content == ";<=" and answer.usage.completion_tokens == 3
        options = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1}
        chunks = list(
            client.chat.completions.create(model="counting", messages=TALK, max_tokens=3, temperature=0, **options)
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ";<="
        assert chunks[-1].usage.total_tokens == 9
        completed = client.completions.create(model="counting", prompt="abc", max_tokens=2, temperature=0, echo=True)
        assert completed.choices[0].text == "abcde"
        parts = client.completions.create(model="counting", prompt="abc", max_tokens=2, temperature=0, stream=True)
        assert "".join(part.choices[0].text for part in parts) == "de"
        assert [model.id for model in client.models.list()] == ["counting"]
        assert client.models.retrieve("counting").id == "counting"
        with pytest.raises(openai.NotFoundError, match="here are counting"):
            client.chat.completions.create(model="other", messages=TALK)
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="counting", messages=[{"role": "user", "content": "a" * 99}])
        assert refused.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError, match="functions is not supported"):
            client.chat.completions.create(model="counting", messages=TALK, functions=[{"name": "f"}])
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()


def test_anthropic(locked):
    anthropic = pytest.importorskip("anthropic", reason="pip install anthropic")
    with anthropic.Anthropic(base_url=locked.url, api_key="secret", max_retries=0) as client:
        fields = {"model": "counting", "max_tokens": 3, "messages": TALK, "extra_body": {"temperature": 0}}
        answer = client.messages.create(**fields)
        assert answer.content[0].text == ";<=" and answer.stop_reason == "max_tokens"
        with client.messages.stream(**fields) as stream:
            assert "".join(stream.text_stream) == ";<="
            assert stream.get_final_message().usage.output_tokens == 3
        assert client.messages.count_tokens(model="counting", messages=TALK).input_tokens == 6
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**{**fields, "model": "other"})
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="wrong").messages.create(**fields)


def test_ollama(locked):
    ollama = pytest.importorskip("ollama", reason="pip install ollama")
    client = ollama.Client(locked.url, headers={"Authorization": "Bearer secret"})
    options = {"temperature": 0, "num_predict": 3}
    assert client.chat("counting", TALK, options=options).message.content == ";<="
    parts = list(client.chat("counting", TALK, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == ";<=" and parts[-1].eval_count == 3
    assert client.generate("counting", "a", options=options).response == ";<="
    assert [model.model for model in client.list().models] == ["counting"]
    assert client.show("counting").modelinfo["llama.context_length"] == 64
    assert client.ps().models[0].model == "counting"
    with pytest.raises(ollama.ResponseError, match="there is no model"):
        client.chat("other", TALK)


def test_litellm(locked, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # which it fetches else
    litellm = pytest.importorskip("litellm", reason="pip install litellm")
    to = {"api_base": f"{locked.url}/v1", "api_key": "secret", "max_tokens": 3, "temperature": 0, "num_retries": 0}
    answer = litellm.completion(model="openai/counting", messages=TALK, **to)
    assert answer.choices[0].message.content == ";<=" and answer.usage.completion_tokens == 3
    parts = litellm.completion(model="openai/counting", messages=TALK, stream=True, **to)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == ";<="
    completed = litellm.text_completion(model="text-completion-openai/counting", prompt="abc", **to)
    assert completed.choices[0].text == "def"
    to = {**to, "api_base": locked.url}
    answer = litellm.completion(model="anthropic/counting", messages=TALK, **to)
    assert answer.choices[0].message.content == ";<="
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(
            model="openai/counting", messages=TALK, **{**to, "api_base": f"{locked.url}/v1", "api_key": "x"}
        )


def test_langchain(locked):
    chats = pytest.importorskip("langchain_openai", reason="pip install langchain-openai")
    to = {"base_url": f"{locked.url}/v1", "api_key": "secret", "model": "counting", "temperature": 0, "max_retries": 0}
    chat = chats.ChatOpenAI(**to, max_tokens=3)
    answer = chat.invoke([("system", "b"), ("human", "a")])
    assert answer.content == ";<=" and answer.usage_metadata["output_tokens"] == 3
    assert "".join(part.content for part in chat.stream("a")) == ";<="
    assert [one.content for one in chat.batch(["a", "b"])] == [";<=", ";<="]
    assert chats.OpenAI(**to, max_tokens=2).invoke("abc") == "de"
    assert chats.ChatOpenAI(**to, max_tokens=3, use_responses_api=True).invoke("a").text == ";<="
