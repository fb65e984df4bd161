"""The model's own work, tested on a session that counts: the token after b is b + 1."""

import asyncio
import os
import threading

import numpy as np
import pytest
import small_tokenizers as small
from counting import GREEDY, CountingSession, MemoryFile, counting_model

from edgeq.engine import writing as module
from edgeq.engine.model import Model
from edgeq.errors import ContextError, TemplateError, TokenizerError, UsageError
from edgeq.runtime.pace import LARGEST_PIECE, LEAST_PIECE


def test_generate_streams_pieces():
    model = counting_model()
    assert list(model.generate("abc", 4, **GREEDY)) == ["d", "e", "f", "g"]
    assert model.finish_reason == "max_tokens"
    assert model.session.evaluated == [*b"abcdef"], "the last token is not computed for nothing"
    assert "".join(model.generate([ord("x")], 2, **GREEDY)) == "yz"
    assert list(model.generate("a", 0)) == []


def test_characters_are_whole():
    euro = "€".encode()
    model = counting_model(jumps={ord("a"): euro[0], euro[0]: euro[1], euro[1]: euro[2], euro[2]: small.IM_END})
    assert list(model.generate("a", **GREEDY)) == ["€"]
    assert list(model.generate("a", 2, **GREEDY)) == [], "cut within a character"
    model.session.jumps[euro[1]] = small.IM_END
    assert list(model.generate("a", **GREEDY)) == ["\ufffd"], "the model itself wrote half a character"


def test_eos_ends_the_text():
    model = counting_model(jumps={ord("c"): small.IM_END})
    assert "".join(model.generate("a", **GREEDY)) == "bc"
    assert model.finish_reason == "eos"


def test_stop_strings_are_never_shown():
    model = counting_model(jumps={ord("z"): ord("a")})
    assert "".join(model.generate("a", 50, stop="fgh", **GREEDY)) == "bcde"
    assert model.finish_reason == "stop"
    assert list(model.generate("a", 50, stop=["zz", "de"], **GREEDY)) == ["b", "c"]
    assert "".join(model.generate("a", 3, stop="defg", **GREEDY)) == "bcd", "held back, then shown as nothing follows"
    assert model.finish_reason == "max_tokens"


def test_a_full_context_ends_the_text():
    model = counting_model(context=8)
    assert "".join(model.generate("abcd", **GREEDY)) == "efghi"
    assert model.finish_reason == "context"
    assert "".join(model.generate("abcdefgh", 3, **GREEDY)) == "i"
    assert model.finish_reason == "context"
    with pytest.raises(ContextError, match="prompt has 9 tokens, the context 8"):
        model.generate("abcdefghi")


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt is empty"),
        ([], {}, "prompt is empty"),
        ([300], {}, "token 300 is not in the model's vocabulary of 270"),
        ([-1], {}, "token -1 is not in"),
        ("a", {"max_tokens": -1}, "max_tokens is -1"),
        ("a", {"temperature": -1.0}, "temperature is -1.0"),
        ("a", {"stop": [""]}, "stop string is empty"),
        (b"abc", {}, "must be a str or a sequence of token ids, not bytes"),
        (["a"], {}, "must be a str or a sequence of token ids, not list"),
        (None, {}, "must be a str or a sequence of token ids, not NoneType"),
        ("a", {"temperature": "x"}, "temperature is 'x': it must be a number"),
        ("a", {"top_k": 2.5}, "top_k is 2.5: it must be a whole number"),
        ("a", {"max_tokens": "5"}, "max_tokens is '5': it must be a whole number"),
        ("a", {"seed": -1}, "seed is -1: give 0 or more, or none at all"),
        ("a", {"stop": 5}, "stop must be a str or a sequence of them"),
        ("a", {"temprature": 1.0}, "there is no option 'temprature': did you mean 'temperature'"),
        ("a", {"xyzzy": 1.0}, "there is no option 'xyzzy'$"),
        ("a", {"logprobs": True}, "logprobs is True: it must be a whole number"),
        ("a", {"logprobs": 1001}, "logprobs is 1001: give 0 to 1000"),
    ],
)
def test_bad_requests_fail_at_once(prompt, options, message):
    with pytest.raises(UsageError, match=message):
        counting_model().generate(prompt, **options)


@pytest.mark.parametrize("messages", ["hello", ["hello"], [5], 5])
def test_messages_are_dicts(messages):
    with pytest.raises(UsageError, match="messages must be a list of dicts"):
        counting_model().chat(messages)


def test_a_closed_model_says_so():
    model = counting_model()
    going = model.generate("a", **GREEDY)
    next(going)
    model.close()
    model.close()
    for use in (
        lambda: model.generate("a"),
        lambda: model.chat([{"role": "user", "content": "a"}]),
        lambda: model.logits([1]),
        lambda: next(going),
    ):
        with pytest.raises(UsageError, match=r"counting\.eqf: the model is closed"):
            use()


def test_long_prompts_go_in_pieces_of_about_half_a_second(monkeypatch):
    """By a clock that says 0.1 s per 16 tokens of the first piece, then 1 s per piece, then nothing."""
    now, steps = 0.0, iter([0.1, 1.0, *[1e-6] * 9])
    model = counting_model(context=2000)
    real = model.session.eval

    def slow(tokens, all_logits=False):
        nonlocal now
        now += next(steps)
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", slow)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    list(model.generate([7] * 600, 1, **GREEDY))
    assert model.session.calls == [LEAST_PIECE, 80, 32, 472]
    list(model.generate([8] * 600, 1, **GREEDY))
    assert model.session.calls[4:] == [LARGEST_PIECE, 88], "the speed is remembered"


def test_an_interrupted_prompt_keeps_what_was_computed(monkeypatch):
    model = counting_model(context=200)
    real, prompt = model.session.eval, [*range(50)]

    def interrupted(tokens, all_logits=False):
        if model.session.position > 0:
            raise KeyboardInterrupt
        return real(tokens, all_logits)

    with monkeypatch.context() as patch:
        patch.setattr(model.session, "eval", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(model.generate(prompt, 1, **GREEDY))
    assert (model.timings.computed_tokens, model.timings.cached_tokens) == (LEAST_PIECE, 0)
    assert model.timings.prompt_s > 0
    assert "".join(model.generate(prompt, 1, **GREEDY)) == "2", "50, the byte after 49"
    assert (model.timings.computed_tokens, model.timings.cached_tokens) == (50 - LEAST_PIECE, LEAST_PIECE)
    assert model.session.evaluated == prompt


def test_chat_computes_only_what_is_new():
    model = counting_model(jumps={ord(":"): ord("h"), ord("h"): ord("i"), ord("i"): small.IM_END})
    talk = [{"role": "user", "content": "one"}]
    answer = "".join(model.chat(talk, **GREEDY))
    assert answer == "hi"
    assert (model.timings.cached_tokens, model.timings.computed_tokens) == (0, len("u:one|a:"))
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "two"}]
    assert "".join(model.chat(talk, **GREEDY)) == "hi"
    assert model.session.position == len("u:one|a:hi|u:two|a:hi")
    assert (model.timings.cached_tokens, model.timings.computed_tokens) == (len("u:one|a:hi"), len("|u:two|a:"))
    assert "".join(model.chat(talk[:1], **GREEDY)) == "hi"
    assert model.timings.computed_tokens == 1, "the last token must be computed again for its logits"
    talk[0]["content"] = "ore"
    list(model.chat(talk, **GREEDY))
    assert model.timings.cached_tokens == len("u:o")


def test_an_abandoned_answer_leaves_the_model_usable():
    model = counting_model()
    first = model.generate("ab", 4, **GREEDY)
    assert next(first) == "c"
    assert "".join(model.generate("xab", 3, **GREEDY)) == "cde"
    assert "".join(first) == "def", "and can itself go on"
    assert (first.finish_reason, first.tokens) == ("max_tokens", [*b"cdef"])
    assert first.timings.computed_tokens == len("ab")
    assert sorted(model.session.evaluated) == sorted(b"abcde" + b"xabcd"), "nothing twice"


def test_an_interrupt_within_the_computation_leaves_the_model_usable(monkeypatch):
    model = counting_model()
    list(model.generate("abcd", 1, **GREEDY))

    def interrupted(tokens, all_logits=False):
        model.session.position += len(tokens)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.session, "eval", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(model.generate("abcdefgh", 1, **GREEDY))
    model.session.evaluated.clear()
    assert "".join(model.generate("abcdefgh", 1, **GREEDY)) == "i"
    assert model.session.evaluated == [*b"efgh"]


def test_templates_and_their_absence():
    own = Model(MemoryFile(small.byte_level_assets()), CountingSession(), chat_template="q{{ messages[0].content }}")
    assert "".join(own.chat([{"role": "user", "content": "a"}], 2, **GREEDY)) == "bc"
    with pytest.raises(TemplateError, match=r"counting\.eqf: the model has no chat template"):
        counting_model(chat_template=None).chat([{"role": "user", "content": "a"}])


def test_logits_of_every_position():
    model = counting_model()
    list(model.generate("ab", 2, **GREEDY))
    logits = model.logits([5, 6, 9])
    assert logits.shape == (3, 270)
    assert logits.argmax(axis=1).tolist() == [6, 7, 10]
    assert model.session.position == 3
    with pytest.raises(UsageError, match="token 270"):
        model.logits([270])


def test_a_tokenizer_of_another_model_is_refused():
    model = Model(MemoryFile(small.byte_level_assets(), vocab=256), CountingSession(vocab=256))
    with pytest.raises(TokenizerError, match="beyond the model's vocabulary of 256"):
        model.generate("a")


def test_an_answer_tells_what_came_of_it():
    model = counting_model(jumps={ord("e"): small.IM_END})
    answer = model.generate("ab", **GREEDY)
    assert (answer.finish_reason, answer.tokens, answer.prompt_tokens) == (None, [], 2)
    assert next(answer) == "c"
    assert repr(answer) == "<edgeq.Answer 'c': not ended>"
    assert (answer.text, str(answer), list(answer)) == ("cde", "cde", [])
    assert answer.finish_reason == model.finish_reason == "eos"
    assert answer.tokens == [*b"cde", small.IM_END]
    assert answer.timings is model.timings and answer.timings.generated_tokens == 4
    other = model.generate("x", 1, **GREEDY)
    assert (other.text, answer.text) == ("y", "cde")
    assert answer.finish_reason == "eos" and model.finish_reason == "max_tokens"
    closed = model.generate("x", **GREEDY)
    next(closed)
    closed.close()
    assert closed.text == "y" and closed.finish_reason is None


def test_the_models_own_sampling_is_the_default():
    """One that draws anything, unless its own settings, or the caller's, take the likeliest."""
    settings = {"generation_config.json": b'{"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}'}
    own = Model(MemoryFile(small.byte_level_assets() | settings), CountingSession())
    assert own.sampling_defaults == {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert (
        own.generate("abc", 20, seed=1).text
        == counting_model().generate("abc", 20, seed=1, temperature=5.0, top_k=0, top_p=1.0, min_p=0.0).text
    )
    assert own.generate("abc", 4, temperature=0.0).text == "defg"
    assert counting_model().sampling_defaults == {}


def test_logprobs_of_an_answer():
    model = counting_model()
    answer = model.generate("ab", 3, logprobs=2, temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=3)
    assert answer.logprobs == []
    _ = answer.text
    likeliest = 9 - np.log(np.exp(9) + 269)
    for before, noted in zip([ord("b"), *answer.tokens], answer.logprobs, strict=False):
        assert noted.logprob == pytest.approx(likeliest - (0 if noted.token == before + 1 else 9))
        assert [i for i, _ in noted.top] == [before + 1, 0], "at a tie the lower id"
        assert [p for _, p in noted.top] == pytest.approx([likeliest, likeliest - 9])
    assert [noted.token for noted in answer.logprobs] == answer.tokens
    assert model.generate("ab", 1, **GREEDY).logprobs == []


def test_answers_come_to_async_code_too():
    model = counting_model()

    async def listen(prompt):
        return [piece async for piece in model.generate(prompt, 4, **GREEDY)]

    async def listen_to_both():
        return await asyncio.gather(listen("ab"), listen("klm"))

    assert asyncio.run(listen_to_both()) == [["c", "d", "e", "f"], ["n", "o", "p", "q"]]


def test_more_async_answers_than_threads_of_the_loop():
    """None of them keeps a thread that another one's next step needs."""
    model = counting_model()
    many = (os.cpu_count() or 1) + 8

    async def listen(i):
        return [piece async for piece in model.generate([*b"ab", i], 3, **GREEDY)]

    async def all_of_them():
        return await asyncio.wait_for(asyncio.gather(*(listen(ord("a") + i) for i in range(many))), 20)

    assert asyncio.run(all_of_them()) == [[chr(ord("a") + i + n) for n in (1, 2, 3)] for i in range(many)]


def test_a_piece_that_a_cancelled_task_waited_for_comes_next(monkeypatch):
    model = counting_model()
    real, go_on = model.session.eval, threading.Event()

    def slow(tokens, all_logits=False):
        assert go_on.wait(10)
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", slow)
    answer = model.generate("ab", 3, **GREEDY)

    async def impatient():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(answer), 0.01)
        go_on.set()
        return await anext(answer)

    assert asyncio.run(impatient()) == "c"
    assert list(answer) == ["d", "e"]
    answer.close()


def test_two_threads_share_an_answer():
    answer = counting_model(context=200).generate("ab", 100, **GREEDY)
    halves = [[], []]
    threads = [threading.Thread(target=lambda half=half: half.extend(answer)) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(halves[0] + halves[1]) == sorted(answer.text)


def test_token_ids_without_a_tokenizer():
    file = MemoryFile({})
    file.metadata["config"] = {"eos_token_id": [7, 260]}
    with Model(file, CountingSession()) as model:
        answer = model.generate_tokens([3], **GREEDY)
        assert (list(answer), answer.tokens, answer.finish_reason) == ([4, 5, 6], [4, 5, 6, 7], "eos")
        assert list(model.generate_tokens([3], 2, **GREEDY)) == [4, 5]
        with pytest.raises(TokenizerError):
            model.generate_tokens("a")
    assert list(counting_model().generate_tokens("ab", 2, **GREEDY)) == [*b"cd"]


def test_scores():
    model = counting_model(context=200)
    likely = float(9 - np.log(np.exp(9) + 269))
    assert model.score("abx").tolist() == pytest.approx([likely, likely - 9])
    long = model.score([*range(150)])
    assert long.shape == (149,) and long.dtype == np.float32 and long == pytest.approx(likely)
    assert model.score([5]).shape == (0,)
    with pytest.raises(UsageError, match="the prompt is empty"):
        model.score("")


def test_a_wrong_value_is_a_value_error():
    with pytest.raises(ValueError, match="top_k is"):
        counting_model().generate("a", top_k=1.5)


def test_parts_of_a_message_are_joined_where_the_template_reads_a_text():
    talk = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert bytes(counting_model().chat_tokens(talk)) == b"u:a\nb|a:"
    reads = "{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}"
    lists = Model(MemoryFile(small.byte_level_assets()), CountingSession(), chat_template=reads)
    assert bytes(lists.chat_tokens(talk)) == b"<a><b>"
    talk[0]["content"][1] = {"type": "input_audio", "input_audio": {"data": "x"}}
    with pytest.raises(UsageError, match="message 1 has a part that is no text \\(input_audio\\)"):
        lists.chat_tokens(talk)


def test_timings():
    model = counting_model()
    list(model.generate("abc", 5, **GREEDY))
    timings = model.timings
    assert (timings.computed_tokens, timings.generated_tokens) == (3, 5)
    assert timings.first_token_s >= timings.prompt_s > 0
    assert timings.prompt_rate == pytest.approx(3 / timings.prompt_s)
    assert timings.generation_rate == pytest.approx(4 / timings.generation_s)


def test_closing_and_showing():
    with counting_model() as model:
        assert repr(model) == "<edgeq.Model counting.eqf: llama, 2,160 parameters, context 64>"
    assert model.session.closed and model.file.closed


def test_seeds_repeat_a_text():
    model = counting_model()
    texts = ["".join(model.generate("abc", 20, temperature=5.0, top_k=0, top_p=1, min_p=0, seed=s)) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
