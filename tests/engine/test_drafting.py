"""A draft changes no token, whatever is drawn; what it draws as the model does is computed along."""

import sys
from pathlib import Path

import pytest
import small_tokenizers as small
from counting import CountingSession, MemoryFile

import edgeq
from edgeq.decode.ngrams import Lookup
from edgeq.engine.drafting import HOPED, Draft, Drafting, check_vocabulary
from edgeq.engine.speculation import WIDTHS, Costs
from edgeq.errors import UsageError
from edgeq.quantize.pipeline import convert
from edgeq.text.tokenizer import load_tokenizer

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))  # random_checkpoints
import random_checkpoints

from edgeq.decode.sampler import Sampler

PROMPT = "Once upon a time there was a"
FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 4}
KINDS = [
    {"temperature": 0.0},
    FREE,
    {"temperature": 1.0, "seed": 2, "xtc_probability": 0.5, "xtc_threshold": 0.05, "repetition_penalty": 1.2},
    {"temperature": 1.0, "seed": 3, "mirostat": 2, "mirostat_tau": 3.0},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The bundled model, large and small, and one without a tokenizer that has a window."""
    folder = tmp_path_factory.mktemp("drafts")
    made = {kind: folder / f"{kind}.eqf" for kind in ("Q8_0", "Q2_K", "gemma3")}
    for kind in ("Q8_0", "Q2_K"):
        convert(tiny_model, made[kind], kind)
    convert(random_checkpoints.write("gemma3", folder), made["gemma3"], "Q8_0", allow_no_tokenizer=True)
    return made


@pytest.fixture
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take as long as one of one row, drafts no time at all, and texts tell nothing by themselves."""
    monkeypatch.setattr(Costs, "cost", lambda costs, rows: 1.0)
    monkeypatch.setattr(Draft, "cost", lambda draft, costs: 0.0)
    monkeypatch.setattr("edgeq.engine.speculation.GAIN", 1.0)
    monkeypatch.setattr(Lookup, "guess", lambda lookup, tokens, count: ([], 0))


def pair(model, prompt, tokens, **options):
    """Two answers, with guesses and without; they are the same."""
    found = []
    for speculate in (True, False):
        answer = model.generate_tokens(prompt, tokens, speculate=speculate, logprobs=2, **options)
        list(answer)
        found.append(answer)
    with_, without = found
    assert with_.tokens == without.tokens and with_.finish_reason == without.finish_reason
    assert with_.logprobs == without.logprobs, "not one bit"
    return with_.timings


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_tokens_and_logprobs_are_the_same(files, options, always_worth_it):
    with edgeq.load(files["Q8_0"], draft=files["Q2_K"], context=256, threads=1) as model:
        timings = pair(model, PROMPT, 60, **options)
    assert 5 < timings.accepted_tokens < timings.drafted_tokens


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_draft_that_is_the_model_itself_is_always_right(files, options, always_worth_it):
    with edgeq.load(files["Q8_0"], draft=files["Q8_0"], context=256, threads=1) as model:
        timings = pair(model, PROMPT, 40, **options)
    assert timings.accepted_tokens == timings.drafted_tokens > 25


def test_windows_in_both(files, always_worth_it):
    with edgeq.load(files["gemma3"], draft=files["gemma3"], context=300, threads=1) as model:
        timings = pair(model, [3, 5, 7, 9] * 45, 50, **FREE)
        assert timings.accepted_tokens > 30


def test_answers_together_and_alone_again(files, always_worth_it):
    """The draft is behind where it was not asked, and of another text than before."""
    texts = [PROMPT, "The dog said", PROMPT + " little"]
    with edgeq.load(files["Q8_0"], draft=files["Q2_K"], context=256, threads=1) as model:
        alone = [model.generate(text, 24, speculate=False, **FREE).text for text in texts]
        assert [answer.text for answer in model.batch(texts, 24, **FREE)] == alone
        assert [model.generate(text, 24, **FREE).text for text in texts] == alone
        turns = [model.generate(text, 24, **FREE) for text in texts[:2]]
        for _ in zip(*turns, strict=False):
            pass
        assert ["".join(answer) and answer.text for answer in turns] == alone[:2] or [a.text for a in turns] == alone[
            :2
        ]


def test_a_grammar_is_not_asked_ahead(files, always_worth_it):
    """`allowed` hears the text token by token, whatever is guessed."""
    heard = []

    def allowed(ids):
        heard.append(len(ids))

    with edgeq.load(files["Q8_0"], draft=files["Q8_0"], context=256, threads=1) as model:
        answer = model.generate_tokens(PROMPT, 20, temperature=0.0, allowed=allowed)
        list(answer)
    assert heard == list(range(heard[0], heard[0] + 20)) and answer.timings.accepted_tokens > 10


def test_a_context_that_the_draft_has_not(files):
    session = CountingSession(context=12)
    draft = Draft(session, 270, 0.1)
    assert draft.guess([97] * 9, 7, Sampler(temperature=0.0)) == [98, 99, 100]
    assert draft.guess([97] * 12, 7, Sampler(temperature=0.0)) == []
    assert draft.guess([98, 99], 2, Sampler(temperature=0.0)) == [100, 101]
    draft._session.file = MemoryFile({})
    draft.close()
    assert session.closed


# --- what cannot be a draft


def test_another_vocabulary_is_refused(files, tmp_path):
    with pytest.raises(UsageError, match=r"gemma3\.eqf: has .* or no tokenizer: it has another vocabulary than .*Q8_0"):
        edgeq.load(files["Q8_0"], draft=files["gemma3"], threads=1)
    model, other = (MemoryFile(small.byte_level_assets()) for _ in range(2))
    tokenizer = load_tokenizer(model.assets, "model", 270)
    check_vocabulary(other, model, tokenizer)
    other.assets = {**other.assets, "tokenizer.json": other.assets["tokenizer.json"].replace(b'"a"', b'"xyz"')}
    other.path = "other.eqf"
    with pytest.raises(UsageError, match=r"other\.eqf: token \d+ is b'xyz', not b'a': it has another vocabulary than"):
        check_vocabulary(other, model, tokenizer)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"draft": 3}, "draft is 3: it must be a path"), ({"draft": "x.eqf", "embeddings": True}, "writes none")],
)
def test_options_that_cannot_work(files, options, said):
    with pytest.raises(UsageError, match=said):
        edgeq.load(files["Q8_0"], **options)


# --- when it is worth it


class Told:
    """A draft that counts its text's tokens, for so many passes each."""

    def __init__(self, cost):
        self._cost, self.asked, self.unread = cost, [], 0.0

    def cost(self, costs):
        return self._cost

    def reading(self, tokens, costs):
        return self.unread

    def guess(self, tokens, count, sampler):
        self.asked.append(count)
        return [len(tokens) + number for number in range(count)]


@pytest.fixture
def costs():
    costs = Costs()
    for rows, seconds in {1: 1.0, 2: 1.2, 4: 1.5, 8: 2.5}.items():
        costs.note(rows, seconds)
    return costs


def write(costs, draft, token, count=400):
    drafting, text = Drafting(draft, Sampler(), costs), [1]
    for number in range(count):
        drafting.draft(text, 100)
        text.append(token(number))
        drafting.drawn(text[-1])
    return drafting


def test_right_guesses_get_longer_and_wrong_ones_are_given_up(costs):
    right = Told(0.1)
    write(costs, right, lambda number: 1 + number, 100)
    assert right.asked[0] == 3 and max(right.asked) == WIDTHS[-1] - 1
    wrong = Told(0.1)
    drafting = write(costs, wrong, lambda number: 2 + number)
    assert 3 < len(wrong.asked) < 40, "and tried again now and then"
    assert drafting._right < HOPED
    far = Told(0.1)
    far.unread = 30.0
    write(costs, far, lambda number: 1 + number)
    assert far.asked == [], "to read that much is not paid back by the 100 tokens that are left"
    slow = Told(1.0)
    write(costs, slow, lambda number: 1 + number)
    assert slow.asked == []


def test_what_a_guess_takes_is_measured(costs):
    draft = Draft(CountingSession(context=100), 270, 0.25)
    assert draft.cost(costs) == 0.25 and draft.reading([1] * 100, costs) == pytest.approx(5.0)
    draft.guess([97, 98], 4, Sampler(temperature=0.0))
    assert 0 < draft.cost(costs) < 0.25
    assert draft.reading([97, 98, 99, 100, 101, 7], costs) < draft.reading([97] * 6, costs)
    fresh = Draft(session := CountingSession(context=100), 270, 0.25)
    fresh.measure()
    assert 0 < fresh.cost(costs) < 0.25 and session.position == 0
