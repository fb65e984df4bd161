"""Guessing changes no token, whatever is drawn and however; and some guesses are right."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from counting import CountingSequence, CountingSession, MemoryFile, counting_model

import edgeq
from edgeq.engine.model import Model
from edgeq.engine.speculation import Costs, Speculation
from edgeq.errors import UsageError
from edgeq.graph import pages
from edgeq.quantize.pipeline import convert

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))  # random_checkpoints
import random_checkpoints

AGAIN = "The cat sat on the mat. The dog sat on the mat. The cat sat on the mat. The dog sat on"
FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
Opened = Callable[[str], Model]


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass takes as long as one of one row, so that whatever can be guessed is computed along."""
    monkeypatch.setattr(Costs, "cost", lambda costs, rows: 1.0)
    monkeypatch.setattr("edgeq.engine.speculation.GAIN", 1.0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Opened]:
    """`opened(case)`: a random model of Q8_0, or the bundled one of Q4_K_M."""
    models: dict[str, Model] = {}

    def get(case: str) -> Model:
        if case not in models:
            folder = tmp_path_factory.mktemp(case)
            checkpoint = tiny_model if case == "tiny" else random_checkpoints.write(case, folder)
            kind = "Q4_K_M" if case == "tiny" else "Q8_0"
            convert(checkpoint, folder / "m.eqf", kind, allow_no_tokenizer=case != "tiny")
            models[case] = edgeq.load(folder / "m.eqf", context=512, threads=1)
        return models[case]

    yield get
    for model in models.values():
        model.close()


def pair(model: Model, prompt, tokens, **options):
    """Two answers, with guesses and without, drawn to their ends; they are the same."""
    answers = []
    for speculate in (True, False):
        answer = model.generate_tokens(prompt, tokens, speculate=speculate, logprobs=3, **options)
        list(answer)
        answers.append(answer)
    with_, without = answers
    assert with_.tokens == without.tokens and with_.finish_reason == without.finish_reason
    assert with_.logprobs == without.logprobs, "not one bit"
    assert without.timings.drafted_tokens == 0
    return with_


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        FREE,
        {"temperature": 1.0, "repetition_penalty": 1.2, "repetition_window": 20},
        {"temperature": 0.7, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        {"temperature": 0.0, "dry_multiplier": 0.8},
        {"temperature": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.05},
        {"temperature": 1.0, "mirostat": 2, "mirostat_tau": 2.0},
    ],
    ids=str,
)
def test_tokens_and_logprobs_are_the_same(opened, options):
    drafted = 0
    for seed in (1, 2, 3):
        drafted += pair(opened("tiny"), AGAIN, 90, seed=seed, **options).timings.drafted_tokens
    assert drafted > 5


@pytest.mark.parametrize("case", ["gemma3", "gpt-oss", "lfm2-bias"])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {**FREE, "temperature": 5.0, "seed": 5}], ids=str)
def test_models_that_look_back_otherwise(opened, case, options, monkeypatch):
    """Windows and convolutions; a text of few words, in which a page is given up meanwhile."""
    monkeypatch.setattr(pages, "REWIND", 16)
    model, words = opened(case), [3, 5, 7, 9, 11]
    few = np.isin(np.arange(model.vocab_size), words)
    timings = pair(model, words * 48, 60, allowed=lambda ids: few, **options).timings
    assert 10 < timings.drafted_tokens >= timings.accepted_tokens > 0
    assert options["temperature"] == 0 or timings.drafted_tokens > timings.accepted_tokens, "some are wrong"


def test_right_guesses_are_counted(opened):
    timings = pair(opened("tiny"), AGAIN, 30, temperature=0.0).timings
    assert 0 < timings.accepted_tokens <= timings.drafted_tokens
    assert timings.generated_tokens == 30


@pytest.mark.parametrize("stop", ["mat", ". The", "dog s"])
def test_stop_strings(opened, stop):
    texts = []
    for speculate in (True, False):
        answer = opened("tiny").generate(AGAIN, 60, stop=stop, temperature=0.0, speculate=speculate)
        texts.append(("".join(answer), answer.finish_reason, answer.tokens))
    assert texts[0] == texts[1]


def test_what_comes_after_a_text_with_guesses(opened):
    """What was computed along and not drawn is not taken for a part of the text."""
    model = opened("tiny")
    expected = model.generate(AGAIN + " the mat. Then", 20, temperature=0.0, speculate=False).text
    begun = model.generate(AGAIN, 20, temperature=0.0)
    for _ in range(4):
        next(begun)
    assert model.generate(AGAIN + " the mat. Then", 20, temperature=0.0).text == expected
    rest = "".join(begun)
    assert rest and begun.text == model.generate(AGAIN, 20, temperature=0.0, speculate=False).text


def test_answers_by_turns(opened):
    """Each takes the cache from the other."""
    model = opened("tiny")
    alone = [model.generate(text, 16, temperature=1.0, seed=4, speculate=False).text for text in (AGAIN, AGAIN[4:])]
    both = [model.generate(text, 16, temperature=1.0, seed=4) for text in (AGAIN, AGAIN[4:])]
    for pieces in zip(*both, strict=False):
        assert all(pieces)
    assert [answer.text for answer in both] == alone


def test_a_full_context_and_the_last_token():
    """Nothing is computed past the context, nor past max_tokens."""
    jumps = {ord("d"): ord("a")}
    model = counting_model(jumps=jumps, context=20)
    answer = model.generate("abcdabcdab", temperature=0.0)
    assert (answer.text, answer.finish_reason) == ("cdabcdabcda", "context")
    assert answer.timings.accepted_tokens > 4
    short = counting_model(jumps=jumps)
    assert short.generate("abcdabcdab", 3, temperature=0.0).text == "cda"
    assert len(short.session.evaluated) <= len("abcdabcdab") + 2


class RigidSequence(CountingSequence):
    """One that can only go back to where it began."""

    def reachable(self, position):
        return position if position == self.position else 0

    def trim(self, position):
        return super().trim(self.reachable(position))


def test_a_model_that_cannot_go_back_by_a_little():
    jumps = {ord("d"): ord("a"), 269: ord("b")}
    session = CountingSession(jumps=jumps, context=400)
    session.program.sequence = RigidSequence
    model = Model(MemoryFile(counting_model().file.assets), session)
    free = {**FREE, "temperature": 1.5, "seed": 7}
    plain = counting_model(jumps=jumps, context=400)
    answer = model.generate_tokens("abcd" * 5, 60, **free)
    assert list(answer) == list(plain.generate_tokens("abcd" * 5, 60, **free, speculate=False))
    assert 0 < answer.timings.drafted_tokens < 20, "it was tried once"


def test_a_guess_that_breaks_the_model(monkeypatch):
    """Logits after a guess are nobody's business unless it is drawn."""
    model, prompt = counting_model(jumps={ord("d"): ord("a")}), "cd1ab"
    real = model.session.eval

    def breaking(tokens, all_logits=False):
        begun = model.session.position
        rows = real(tokens, all_logits)
        if begun > 0:
            rows[np.array(tokens) == ord("1")] = np.nan
        return rows

    monkeypatch.setattr(model.session, "eval", breaking)
    answer = model.generate(prompt, 9, temperature=0.0)
    assert answer.text == "cdabcdabc"
    assert ord("1") in model.session.evaluated[len(prompt) :], "it was guessed"


def test_only_true_or_false():
    with pytest.raises(UsageError, match="speculate is 3: it must be True or False"):
        counting_model().generate("a", speculate=3)


# --- when it is worth it


@pytest.fixture
def costs(monkeypatch):
    monkeypatch.undo()
    costs = Costs()
    for rows, seconds in {1: 1.0, 2: 1.4, 4: 1.7, 8: 3.2}.items():
        costs.note(rows, seconds)
    return costs


def test_what_is_computed_along_follows_from_costs_and_chances(costs):
    assert costs.worth([0.99**n for n in range(1, 8)]) == 7
    assert costs.worth([0.9**n for n in range(1, 8)]) == 3
    assert costs.worth([0.9**n for n in range(1, 3)]) == 1
    assert costs.worth([0.3**n for n in range(1, 8)]) == 0
    assert costs.worth([]) == 0
    assert Costs().worth([1.0] * 7) == 0, "what one takes is not known yet"


def test_costs_are_measured_and_disturbances_count_little(costs):
    assert costs.cost(4) == pytest.approx(1.7)
    costs.note(4, 1000.0)
    assert costs.cost(4) < 2.1
    for _ in range(100):
        costs.note(4, 3.0)
    assert costs.cost(4) == pytest.approx(3.0, rel=0.01)
    for _ in range(6):
        costs.note(4, 1.5)
    assert costs.cost(4) == pytest.approx(1.5, rel=0.05)


def test_what_was_too_slow_is_tried_again_later(monkeypatch):
    monkeypatch.undo()
    costs = Costs()
    costs.note(1, 1.0)
    costs.note(2, 4.0)
    tries = next(n for n in range(10_000) if costs.worth([0.8]))
    assert 100 < tries < 1000


def test_a_text_that_does_not_repeat_costs_little(costs):
    """Guesses that are always wrong are given up: wrong ones that are not computed tell as much."""
    speculation, sequence, drafted = Speculation(costs), [1, 2, 1, 2], 0
    for _ in range(400):
        drafted += len(speculation.draft(sequence, 100))
        guessed = speculation._guesses
        sequence.append(next(token for token in (1, 2, 3) if guessed[:1] != [token]))
        speculation.drawn(sequence[-1])
    assert 0 < drafted < 60
