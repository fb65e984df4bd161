"""What a server of a small real model does, as other servers are tested for it."""

import pytest
from serving import events, serving, wait_until

from edgeq import convert, load

COMPLETIONS = "/v1/completions"
PROMPT = "Once upon a time there was a little"


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundled") / "tiny.eqf"
    convert(str(tiny_model), path, "Q8_0")
    with serving({"tiny": lambda say: load(path, context=64)}) as served:
        wait_until(lambda: served.roster.ready, 120)
        yield served


def choice(tiny, **fields):
    answer = tiny.post(COMPLETIONS, **{"prompt": PROMPT, "max_tokens": 8, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_a_seed_says_all(tiny):
    """Again and again the same with one seed, and other texts with others."""
    told = [[choice(tiny, seed=seed, temperature=1.0)["text"] for _ in range(3)] for seed in range(4)]
    assert all(len(set(texts)) == 1 for texts in told) and len({texts[0] for texts in told}) == 4


def test_what_is_cached_changes_nothing(tiny):
    """A prompt that is computed anew gives what one gives that is kept."""
    prompts = [f"{PROMPT} {word}" for word in ("dog", "cat", "girl")]
    kept = {}
    for _ in range(2):
        for prompt in prompts:
            for temperature in (0.0, 1.0):
                answer = tiny.post(COMPLETIONS, prompt=prompt, max_tokens=8, temperature=temperature, seed=5).json()
                told = kept.setdefault((prompt, temperature), answer["choices"][0]["text"])
                assert answer["choices"][0]["text"] == told
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    with_scores = choice(tiny, prompt=prompts[0], temperature=0, logprobs=1, echo=True)
    assert with_scores["text"].endswith(kept[prompts[0], 0.0]), "which computes the prompt anew"


def test_a_bias_keeps_tokens_out(tiny):
    free = choice(tiny, temperature=0, logprobs=0)
    first = tiny.roster.entries["tiny"].engine.encode(free["text"], add_special=False)
    bias = {str(token): -100 for token in {*first}}
    kept_out = choice(tiny, temperature=0, logit_bias=bias)["text"]
    assert not {*tiny.roster.entries["tiny"].engine.encode(kept_out, add_special=False)} & {*first}
    wanted = next(token for token in range(300, 400) if token not in first)
    forced = choice(tiny, temperature=0, logit_bias={str(wanted): 100}, max_tokens=1, logprobs=0)
    assert forced["logprobs"]["tokens"] == [tiny.roster.entries["tiny"].engine.token_text(wanted)[0]]


def test_a_text_ends_where_the_context_does(tiny):
    """Nothing of what was said is dropped to make room."""
    answer = tiny.post(COMPLETIONS, prompt=PROMPT, max_tokens=500, temperature=0, logit_bias={"0": -100}).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert 64 <= answer["usage"]["total_tokens"] <= 65
    stream = events(tiny.post(COMPLETIONS, prompt=PROMPT, max_tokens=500, temperature=0, stream=True).text)
    assert stream[-2]["choices"][0]["finish_reason"] in ("length", "stop")
    assert tiny.post(COMPLETIONS, prompt=PROMPT * 32).json()["error"]["code"] == "context_length_exceeded"


def test_timings_add_up(tiny):
    """What answers tell of their tokens is what the counters count."""

    def counted():
        lines = tiny.http.get("/metrics").text.splitlines()
        found = (line.split('kind="')[1].split('"} ') for line in lines if line.startswith("edgeq_tokens_total"))
        return {kind: int(value) for kind, value in found}

    choice(tiny)
    before, told = counted(), {"prompt": 0, "cached": 0, "generated": 0}
    for tokens in (1, 4, 16):
        timings = tiny.post(COMPLETIONS, prompt=f"{PROMPT} {tokens}", max_tokens=tokens, seed=1).json()["timings"]
        assert all(isinstance(value, int | float) and value >= 0 for value in timings.values())
        assert timings["prompt_n"] > 0 and timings["predicted_n"] <= tokens
        for kind, name in (("prompt", "prompt_n"), ("cached", "cache_n"), ("generated", "predicted_n")):
            told[kind] += timings[name]
    wait_until(lambda: {kind: counted()[kind] - before[kind] for kind in told} == told)
    assert told["cached"] > 0


def test_the_official_client_embeds(tiny):
    openai = pytest.importorskip("openai", reason="pip install openai")
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="any", max_retries=0) as client:
        texts = ["The sun is red", "A dog", "The sun is red"]
        one, other, again = (row.embedding for row in client.embeddings.create(model="tiny", input=texts).data)
        assert one == again != other
        numbers = client.embeddings.create(model="tiny", input=texts[0], encoding_format="float").data[0].embedding
        assert numbers == pytest.approx(one)
