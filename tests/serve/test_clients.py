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
