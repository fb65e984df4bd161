"""Answers that are computed together: of a list of prompts, of one prompt, in threads, in async code."""

import asyncio
import threading

import pytest
from counting import GREEDY, counting_model

from edgeq.errors import UsageError
from edgeq.loading import load

DRAWN = {"temperature": 1.5, "top_k": 0}


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    from edgeq.quantize.pipeline import convert

    path = tmp_path_factory.mktemp("answers") / "tiny.eqf"
    convert(str(tiny_model), path, "Q8_0")
    with load(path, threads=1, context=256) as model:
        yield model


PROMPTS = ["Once upon a time", "The little dog", "A big red ball was", "She said", "Once upon a hill"]


def test_each_of_a_batch_is_as_it_is_alone(tiny):
    alone = [tiny.generate(prompt, 30, seed=3, **DRAWN) for prompt in PROMPTS]
    texts = [answer.text for answer in alone]
    answers = tiny.batch(PROMPTS, 30, seed=3, **DRAWN)
    assert answers.texts == texts
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in alone]
    assert len(answers) == 5 and answers[1] is list(answers)[1] and answers[1:3] == list(answers)[1:3]
    assert all(answer.timings.generated_tokens == 30 and answer.timings.prompt_s > 0 for answer in answers)


def test_pieces_come_as_they_become_known(tiny):
    whole = [tiny.generate(prompt, 20, **GREEDY).text for prompt in PROMPTS]
    texts, order = [""] * len(PROMPTS), []
    for index, piece in tiny.batch(PROMPTS, 20, **GREEDY).pieces():
        texts[index] += piece
        order.append(index)
    assert texts == whole
    assert order.index(4) < 15, "none waits for another one's end"


def test_passes_are_shared(tiny, monkeypatch):
    counts, step = [], tiny.session.program.step
    monkeypatch.setattr(tiny.session.program, "step", lambda parts: (counts.append(len(parts)), step(parts))[1])
    _ = tiny.batch(PROMPTS, 20, **GREEDY).texts
    assert len(counts) < 30 and counts.count(5) > 10


def test_several_answers_of_one_prompt(tiny):
    answers = tiny.generate("Once upon a time", 20, n=3, seed=7, **DRAWN)
    assert answers.texts == [tiny.generate("Once upon a time", 20, seed=7 + i, **DRAWN).text for i in range(3)]
    assert len(set(answers.texts)) == 3
    assert len(tiny.generate("Once", 2, n=2)) == 2, "without a seed"
    with pytest.raises(UsageError, match="n is 0: it must be a whole number, 1 or more"):
        tiny.generate("Once", n=0)


def test_a_batch_of_conversations():
    talks = [[{"role": "user", "content": content}] for content in ("one", "two")]
    model = counting_model()
    assert model.batch(talks, 3, **GREEDY).texts == [model.chat(talk, 3, **GREEDY).text for talk in talks]
    assert model.batch([[*b"ab"], "k"], 2, **GREEDY).texts == ["cd", "lm"]
    assert model.batch([]).texts == [] == list(model.batch([]).pieces())
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.batch(["a", ""])


def test_an_error_of_one_leaves_the_others(monkeypatch):
    model = counting_model()
    answers = model.batch(["a", "k"], 3, **GREEDY)

    def broken(logits, before):
        raise UsageError("mine")

    monkeypatch.setattr(answers[0].request, "choose", broken)
    with pytest.raises(UsageError, match="mine"):
        list(answers.pieces())
    assert "".join(piece for _, piece in answers.pieces()) in ("lmn", "mn", "n", "")
    assert answers[1].text == "lmn"


def test_a_batch_that_is_closed_or_dropped_computes_no_more(tiny):
    answers = tiny.batch(PROMPTS, 200, **GREEDY)
    pieces = answers.pieces()
    next(pieces)
    answers.close()
    assert list(pieces) == [] and all(answer.finish_reason is None for answer in answers)
    tiny.batch(PROMPTS, 5)  # never asked for
    assert tiny.generate("Once", 3, **GREEDY).text


def test_threads_share_passes(tiny, monkeypatch):
    counts, step, together = [], tiny.session.program.step, threading.Barrier(4)
    monkeypatch.setattr(tiny.session.program, "step", lambda parts: (counts.append(len(parts)), step(parts))[1])
    expected = [tiny.generate(prompt, 60, **GREEDY).text for prompt in PROMPTS[:4]]
    counts.clear()
    texts = {}

    def work(number):
        together.wait(10)
        texts[number] = tiny.generate(PROMPTS[number], 60, **GREEDY).text

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [texts[number] for number in range(4)] == expected
    assert max(counts) > 1 and len(counts) < 4 * 60


def test_async_answers_end_with_their_task(tiny):
    expected = tiny.generate("Once upon a time", 20, **GREEDY).text
    answers = []
    real = tiny.generate

    async def whole():
        return "".join([piece async for piece in tiny.agenerate("Once upon a time", 20, **GREEDY)])

    async def endless():
        async for _ in tiny.agenerate("The little dog", 200, **GREEDY):
            await asyncio.sleep(0)

    async def both():
        task = asyncio.create_task(endless())
        text = await whole()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return text

    tiny.generate = lambda *given, **options: answers.append(real(*given, **options)) or answers[-1]
    try:
        assert asyncio.run(both()) == expected
    finally:
        del tiny.generate
    ended = answers[1]
    assert ended.request.cancelled and len(ended.tokens) < 200 and ended.finish_reason is None


def test_chat_in_async_code():
    model = counting_model()
    talk = [{"role": "user", "content": "one"}]

    async def listen():
        return "".join([piece async for piece in model.achat(talk, 3, **GREEDY)])

    assert asyncio.run(listen()) == model.chat(talk, 3, **GREEDY).text
