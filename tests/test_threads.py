"""Threads that use one model at once: every result is the one that it is alone."""

import random
import threading
from collections import Counter

import numpy as np
import pytest
from counting import GREEDY, counting_model

from edgeq.loading import load

CALLS = 40  # of each thread


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    from edgeq.quantize.pipeline import convert

    path = tmp_path_factory.mktemp("threads") / "tiny.eqf"
    convert(str(tiny_model), path, "Q8_0")
    with load(path, threads=2, context=128) as model:
        yield model


def in_threads(work, threads=4):
    """`work(number)` in so many threads; the first thing that any of them raised is raised."""
    wrong = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            wrong.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(120)
        assert not thread.is_alive()
    if wrong:
        raise wrong[0]


def test_every_kind_of_call_at_once(tiny):
    """None is refused, none is lost, and each result has the bits that it has alone."""
    prompts = ["Once upon a time", "The little dog", "A big red ball was", "She said"]
    ids = [tiny.tokenizer.encode(prompt) for prompt in prompts]
    texts = [tiny.generate(prompt, 12, **GREEDY).text for prompt in prompts]
    logits = [tiny.logits(one) for one in ids]
    scores = [tiny.score(one) for one in ids]
    vectors = [tiny.embed([prompt]) for prompt in prompts]
    done = Counter()

    def work(number):
        draw = random.Random(number)
        for _ in range(CALLS):
            which, kind = draw.randrange(len(prompts)), draw.choice(["text", "chat", "logits", "score", "embed"])
            if kind == "text":
                assert tiny.generate(prompts[which], 12, **GREEDY).text == texts[which]
            elif kind == "chat":
                next(tiny.chat([{"role": "user", "content": prompts[which]}], **GREEDY))  # and then abandoned
            elif kind == "logits":
                assert np.array_equal(tiny.logits(ids[which]), logits[which])
            elif kind == "score":
                assert np.array_equal(tiny.score(ids[which]), scores[which])
            else:
                assert np.array_equal(tiny.embed([prompts[which]]), vectors[which])
            done[number] += 1

    in_threads(work)
    assert [done[number] for number in range(4)] == 4 * [CALLS]


def test_an_answer_goes_on_where_another_thread_asks_in_between(tiny):
    whole = tiny.generate("Once upon a time", 30, **GREEDY).text
    answer = tiny.generate("Once upon a time", 30, **GREEDY)
    begun = next(answer)
    in_threads(lambda _: tiny.logits([1, 2, 3]), threads=1)
    assert begun + "".join(answer) == whole


def test_closing_while_others_ask():
    model = counting_model(context=5000)
    answer = model.generate("a", **GREEDY)
    next(answer)
    in_threads(lambda _: model.close(), threads=1)
    with pytest.raises(ValueError, match="the model is closed"):
        next(answer)
