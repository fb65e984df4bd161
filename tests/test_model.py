"""The model's own work, tested on a session that counts: the token after b is b + 1."""

import pytest
import small_tokenizers as small
from counting import GREEDY, CountingSession, MemoryFile, counting_model

from edgeq import model as module
from edgeq.errors import ContextError, TemplateError, TokenizerError, UsageError
from edgeq.model import Model, load
from edgeq.prompt_cache import LARGEST_PIECE, LEAST_PIECE


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
    assert list(model.generate("a", 2, **GREEDY)) == ["\ufffd"], "cut within a character"


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


def loading(monkeypatch, assets):
    file, session = MemoryFile(assets), CountingSession()
    monkeypatch.setattr(module, "open_file", lambda path: file)
    monkeypatch.setattr("edgeq.runtime.session.Session", lambda *arguments, **options: session)
    return file, session


def test_load_reads_the_tokenizer(monkeypatch):
    loading(monkeypatch, small.byte_level_assets())
    model = load("m.eqf")
    assert "tokenizer" in model.__dict__ and model.timings.load_s > 0
    loading(monkeypatch, {})
    with load("m.eqf") as model:
        assert model.logits([1, 2]).shape == (2, 270), "token ids need no tokenizer"
        with pytest.raises(TokenizerError, match=r"counting\.eqf: has no tokenizer\.json or tokenizer\.model"):
            model.generate("a")


def test_load_lets_go_of_a_file_with_a_broken_tokenizer(monkeypatch):
    file, session = loading(monkeypatch, {"tokenizer.json": b"{"})
    with pytest.raises(TokenizerError, match=r"counting\.eqf: tokenizer\.json cannot be read"):
        load("m.eqf")
    assert file.closed and session.closed


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
    assert (model.timings.prompt_tokens, model.timings.cached_tokens) == (LEAST_PIECE, 0)
    assert model.timings.prompt_s > 0
    assert "".join(model.generate(prompt, 1, **GREEDY)) == "2", "50, the byte after 49"
    assert (model.timings.prompt_tokens, model.timings.cached_tokens) == (50 - LEAST_PIECE, LEAST_PIECE)
    assert model.session.evaluated == prompt


def test_chat_computes_only_what_is_new():
    model = counting_model(jumps={ord(":"): ord("h"), ord("h"): ord("i"), ord("i"): small.IM_END})
    talk = [{"role": "user", "content": "one"}]
    answer = "".join(model.chat(talk, **GREEDY))
    assert answer == "hi"
    assert (model.timings.cached_tokens, model.timings.prompt_tokens) == (0, len("u:one|a:"))
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "two"}]
    assert "".join(model.chat(talk, **GREEDY)) == "hi"
    assert model.session.position == len("u:one|a:hi|u:two|a:hi")
    assert (model.timings.cached_tokens, model.timings.prompt_tokens) == (len("u:one|a:hi"), len("|u:two|a:"))
    assert "".join(model.chat(talk[:1], **GREEDY)) == "hi"
    assert model.timings.prompt_tokens == 1, "the last token must be computed again for its logits"
    talk[0]["content"] = "ore"
    list(model.chat(talk, **GREEDY))
    assert model.timings.cached_tokens == len("u:o")


def test_an_abandoned_answer_leaves_the_model_usable():
    model = counting_model()
    first = model.generate("ab", **GREEDY)
    assert next(first) == "c"
    assert "".join(model.generate("ab", 3, **GREEDY)) == "cde"
    with pytest.raises(UsageError, match="has begun another one"):
        next(first)


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


def test_timings():
    model = counting_model()
    list(model.generate("abc", 5, **GREEDY))
    timings = model.timings
    assert (timings.prompt_tokens, timings.generated_tokens) == (3, 5)
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
