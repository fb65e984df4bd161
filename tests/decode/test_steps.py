"""What the steps beside those of test_sampler.py compute: against llama.cpp's own small cases, papers' definitions in
plain Python, and what must hold for any logits."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.decode.candidates import Candidates
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import STEPS, checked
from edgeq.decode.step import Filter, Processor, Text
from edgeq.errors import UsageError

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}  # no filter


def logits_of(probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


def processed(logits, recent, text=None, **options):
    """Logits after all processors."""
    values = checked(options)
    for step in STEPS:
        if issubclass(step, Processor):
            logits = step(values, text or Text()).process(logits, recent)
    return logits


def probabilities(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def left(given, **options):
    """Id -> share of what the filters leave."""
    values, logits = checked(PLAIN | options), logits_of(given)
    candidates = Candidates(logits, float(logits.max()))
    for step in STEPS:
        if issubclass(step, Filter):
            candidates = step(values, Text()).filter(candidates)
    return dict(zip(candidates.ids.tolist(), candidates.shares.tolist(), strict=True))


# --- what is asked for


def test_a_bias_is_added():
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    greedy = Sampler(temperature=0, logit_bias={0: 2.5, 2: -math.inf})
    assert greedy.sample(logits) == 0 and logits.tolist() == [1, 2, 3]
    assert Sampler(temperature=0, logit_bias={}).sample(logits) == 2
    with pytest.raises(UsageError, match="logit_bias names token 3: the model's vocabulary has 3"):
        Sampler(Text(vocab=3), logit_bias={3: 1.0})


@pytest.mark.parametrize("value", [[5], {"5": 1.0}, {-1: 1.0}, {5: "x"}, {5: math.nan}, {5: math.inf}, {True: 1.0}])
def test_what_is_no_bias(value):
    with pytest.raises(UsageError, match=r"^logit_bias is .*: it must be numbers, less than infinity, by token id"):
        Sampler(logit_bias=value)


@pytest.mark.parametrize("packed", [False, True])
def test_only_allowed_tokens(packed):
    seen = []

    def allowed(ids):
        seen.append(list(ids))
        mask = np.arange(11) % 3 == len(ids)
        return np.packbits(mask, bitorder="little") if packed else mask

    logits = np.arange(11, dtype=np.float32)
    assert [Sampler(temperature=0, allowed=allowed).sample(logits, recent) for recent in ([], [4], [4, 4])] == [
        9,
        10,
        8,
    ]
    assert seen == [[], [4], [4, 4]]
    drawn = Sampler(**PLAIN, seed=1, allowed=allowed)
    assert {drawn.sample(np.zeros(11, np.float32), [7]) for _ in range(200)} == {1, 4, 7, 10}
    assert Sampler(temperature=0, allowed=lambda ids: None).sample(logits) == 10


def test_masks_that_cannot_work():
    logits = np.zeros(11, np.float32)
    for mask in (np.ones(10, bool), np.ones(11, np.uint8), np.ones(3, np.uint8), np.ones((1, 11), bool)):
        with pytest.raises(UsageError, match=r"it must be bool \[11\], or its bits as u8"):
            Sampler(allowed=lambda ids, mask=mask: mask).sample(logits)
    with pytest.raises(UsageError, match="lets no token come next"):
        Sampler(allowed=lambda ids: np.zeros(2, np.uint8)).sample(logits)
    with pytest.raises(UsageError, match="allowed is 5: it must be a function"):
        Sampler(allowed=5)


# --- penalties


@pytest.mark.parametrize(
    ("recent", "expected"),
    [
        ([0], [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
        ([0, 1, 2], [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]),
        ([0, 1, 2, 0, 0], [0.000000, 0.000023, 0.000023, 0.499977, 0.499977]),
    ],
)
def test_frequency_and_presence(recent, expected):
    """llama.cpp's cases, all of whose tokens were generated."""
    logits = processed(logits_of([0.2] * 5), recent, presence_penalty=5.0, frequency_penalty=5.0)
    assert probabilities(logits) == pytest.approx(expected, abs=1e-5)


def test_the_prompt_is_free_of_both():
    logits = np.zeros(4, np.float32)
    text = Text(prompt_tokens=3)
    changed = processed(logits, [0, 0, 1, 1, 2, 2], text, presence_penalty=0.5, frequency_penalty=0.25)
    assert changed.tolist() == [0, -0.75, -1, 0]
    assert processed(logits, [0, 0, 1], text, presence_penalty=0.5) is logits
    assert processed(logits, [0, 0, 1, 1], text, frequency_penalty=-2.0).tolist() == [0, 2, 0, 0]


# --- DRY

LLAMA_DRY = [  # probabilities, tokens, expected, multiplier, base, allowed length, window, breaking tokens
    ([0.25] * 4, [0, 1], [0.25] * 4, 1.0, 1.1, 2, 4, ()),
    ([0.25] * 4, [0, 1, 2, 0, 1], [0.296923, 0.296923, 0.109232, 0.296923], 1.0, 1.1, 2, 5, ()),
    ([0.2] * 5, [0, 1, 3, 4, 0, 1], [0.2] * 5, 1.0, 1.1, 2, 6, (3,)),
    ([0.2] * 5, [0, 1, 2, 0, 1], [0.241818, 0.241818, 0.032727, 0.241818, 0.241818], 2.0, 1.1, 2, 5, ()),
    ([0.2] * 5, [0, 1, 2, 3, 4, 0, 1], [0.2] * 5, 1.0, 1.1, 4, 7, ()),
]


@pytest.mark.parametrize(
    ("given_", "recent", "expected", "multiplier", "base", "allowed", "window", "breaking"), LLAMA_DRY
)
def test_dry_as_in_llama_cpp(given_, recent, expected, multiplier, base, allowed, window, breaking):
    pieces = {token: b"*" for token in breaking}
    options = {
        "dry_multiplier": multiplier,
        "dry_base": base,
        "dry_allowed_length": allowed,
        "dry_penalty_last_n": window,
    }
    text = Text(piece_bytes=lambda token: pieces.get(token, b"x"))
    assert probabilities(processed(logits_of(given_), recent, text, **options)) == pytest.approx(expected, abs=1e-5)


def plain_dry(recent, multiplier, base, allowed, window, breaking, vocab):
    """Penalties by the definition, with every length compared."""
    window = recent if window < 0 else recent[len(recent) - min(window, len(recent)) :]
    limit = next((i for i, token in enumerate(reversed(window)) if token in breaking), len(window))
    lengths = {}
    for end in range(len(window) - 1):
        length = 0
        while length <= end and length < limit and window[end - length] == window[len(window) - 1 - length]:
            length += 1
        if length >= allowed:
            lengths[window[end + 1]] = max(length, lengths.get(window[end + 1], 0))
    most = int(88 / math.log(base)) if base > 1 else 0
    return [
        multiplier * base ** min(lengths[t] - allowed, most) if t in lengths and t not in breaking else 0.0
        for t in range(vocab)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=40),
    st.sampled_from([1.0, 1.2, 1.75, 40.0]),
    st.integers(1, 4),
    st.sampled_from([-1, 0, 3, 12, 64]),
    st.sets(st.integers(0, 4), max_size=2),
)
def test_dry_by_its_definition(recent, base, allowed, window, breaking):
    text = Text(piece_bytes=lambda token: b"a\n" if token in breaking else b"ab")
    options = {"dry_base": base, "dry_allowed_length": allowed, "dry_penalty_last_n": window}
    logits = processed(np.zeros(5, np.float32), recent, text, dry_multiplier=0.5, **options)
    expected = plain_dry(recent, 0.5, base, allowed, window, breaking, 5) if window else [0.0] * 5
    assert (-logits).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_breaker_that_is_spread_over_tokens():
    pieces = {0: b"a", 1: b"EN", 2: b"D!", 3: b"b"}
    text = Text(piece_bytes=pieces.__getitem__)
    options = {"dry_multiplier": 1.0, "dry_allowed_length": 2, "dry_sequence_breakers": ["END"]}
    loop = [0, 3, 1, 2, 0, 3]
    assert processed(np.zeros(4, np.float32), [*loop, 1], text, **options)[2] == -1.75, "of three, none a breaker"
    assert not processed(np.zeros(4, np.float32), [*loop, 1, 2, 0], text, **options).any(), "one follows it"
    assert processed(np.zeros(4, np.float32), [*loop, 1, 2, 0, 3], text, **options)[1] == -1.0, "two follow it"
    assert processed(np.zeros(4, np.float32), [*loop, 1, 2, 0], None, **options)[3] < -1.0, "nothing is known of texts"


@pytest.mark.parametrize("value", ["\n", [""], [5], 5])
def test_what_are_no_breakers(value):
    with pytest.raises(UsageError, match=r"dry_sequence_breakers is .*: it must be a list of texts"):
        Sampler(dry_sequence_breakers=value)


# --- what is left


@pytest.mark.parametrize(
    ("given_", "options", "expected"),
    [
        # llama.cpp's own cases
        ([0.1, 0.2, 0.3, 0.4], {"top_n_sigma": 1.0}, {2: 0.428571, 3: 0.571429}),
        ([0.1, 0.2, 0.3, 0.4], {"top_n_sigma": 0.0}, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
        ([0.1, 0.2, 0.3, 0.4], {"top_n_sigma": 3.0}, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}),
        ([0.97, 0.01, 0.01, 0.01], {"typical_p": 0.5}, {0: 1.0}),
        ([0.4, 0.2, 0.2, 0.2], {"typical_p": 0.5}, {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
        ([0.4, 0.3, 0.2, 0.1], {"xtc_threshold": 0.09}, {3: 1.0}),
        ([0.4, 0.3, 0.2, 0.1], {"xtc_threshold": 0.19}, {2: 2 / 3, 3: 1 / 3}),
        ([0.4, 0.3, 0.2, 0.1], {"xtc_threshold": 0.29}, {1: 0.5, 2: 1 / 3, 3: 1 / 6}),
        ([0.4, 0.3, 0.2, 0.1], {"xtc_threshold": 0.39}, {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}),
        # at least so many
        ([0.4, 0.3, 0.2, 0.1], {"min_p": 0.9, "min_keep": 3}, {0: 4 / 9, 1: 3 / 9, 2: 2 / 9}),
        ([0.4, 0.3, 0.2, 0.1], {"top_p": 0.1, "min_keep": 2}, {0: 4 / 7, 1: 3 / 7}),
        ([0.97, 0.01, 0.01, 0.01], {"typical_p": 0.5, "min_keep": 9}, {0: 0.97, 1: 0.01, 2: 0.01, 3: 0.01}),
        ([0.4, 0.3, 0.2, 0.1], {"xtc_threshold": 0.19, "min_keep": 3}, {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}),
        # in llama.cpp's order: sigma before k, k before typical, and probabilities are counted anew
        ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "xtc_threshold": 0.42}, {1: 1.0}),
        ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "xtc_threshold": 0.43}, {0: 4 / 7, 1: 3 / 7}),
        ([0.4, 0.2, 0.2, 0.2], {"typical_p": 0.5, "top_p": 0.34}, {1: 0.5, 2: 0.5}),
    ],
)
def test_filters_leave(given_, options, expected):
    always = {"xtc_probability": 1.0} if "xtc_threshold" in options else {}
    assert left(given_, **options, **always) == pytest.approx(expected, rel=1e-4)


def test_sigma_does_not_count_what_is_forbidden():
    logits = logits_of([0.1, 0.2, 0.3, 0.4])
    masked = np.concatenate([logits, np.full(90, -np.inf, np.float32)])
    sampler = Sampler(**PLAIN | {"top_n_sigma": 1.0, "seed": 3})
    assert {sampler.sample(masked) for _ in range(100)} == {2, 3}


def test_xtc_works_as_often_as_it_should():
    sampler = Sampler(**PLAIN, xtc_probability=0.3, xtc_threshold=0.2, seed=2)
    counts = Counter(sampler.sample(logits_of([0.6, 0.3, 0.1])) for _ in range(4000))
    # in 0.3 of all draws the first is left out: of the others the second has 3/4
    assert counts[1] / 4000 == pytest.approx(0.7 * 0.3 + 0.3 * 0.75, abs=0.03)


def test_what_is_off_draws_nothing():
    """The numbers of the draw are its own: a step that does nothing takes none of them."""
    logits = np.random.default_rng(1).normal(size=500).astype(np.float32)
    plain = Sampler(seed=4)
    idle = Sampler(
        seed=4, xtc_probability=1.0, xtc_threshold=0.6, dry_multiplier=1.0, top_n_sigma=100.0, mirostat_tau=1.0
    )
    recent = []
    for _ in range(50):
        token = plain.sample(logits, recent)
        assert idle.sample(logits, [1]) == token
        recent.append(token)


# --- the draw


@pytest.mark.parametrize("p", [0.5, 0.7, 0.95])
def test_dynamic_temperature(p):
    """Entropy decides, by the formula of its makers."""
    given_ = [p, 1 - p]
    doubt = -sum(q * math.log(q) for q in given_) / math.log(2)
    temperature = 0.4 + (1.6 - 0.4) * doubt**2
    weights = [q ** (1 / temperature) for q in given_]
    sampler = Sampler(**PLAIN | {"dynatemp_range": 0.6, "dynatemp_exponent": 2.0, "seed": 1})
    counts = Counter(sampler.sample(logits_of(given_)) for _ in range(4000))
    assert counts[0] / 4000 == pytest.approx(weights[0] / sum(weights), abs=0.03)
    cold = Sampler(**PLAIN | {"temperature": 0.5, "dynatemp_range": 0.5, "seed": 1})
    assert cold.sample(np.array([0, 5000, 0], np.float32)) == 1, "no doubt, temperature 0"


def test_mirostat_by_its_definition():
    rng, random = np.random.default_rng(8), np.random.Generator(np.random.PCG64(5))
    sampler = Sampler(seed=5, temperature=0.9, mirostat=2, mirostat_tau=2.0, mirostat_eta=0.3)
    mu = 4.0
    for _ in range(60):
        logits = (rng.normal(size=300) * 2).astype(np.float32)
        shares = np.exp((logits.astype(np.float64) - logits.max()) / 0.9)
        shares /= shares.sum()
        kept = [token for token in range(300) if -math.log2(shares[token]) <= mu] or [int(shares.argmax())]
        sums = np.cumsum(shares[kept])
        place = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
        assert sampler.sample(logits) == kept[place]
        mu -= 0.3 * (-math.log2(shares[kept[place]] / sums[-1]) - 2.0)


# --- all of them


def test_an_unknown_option_is_refused():
    with pytest.raises(UsageError, match=r"there is no option 'temprature': did you mean 'temperature'"):
        Sampler(temprature=0)
    with pytest.raises(UsageError, match=r"there is no option 'xyzzy'$"):
        Sampler(xyzzy=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presence_penalty": math.inf}, "presence_penalty is inf: it must be a finite number"),
        ({"frequency_penalty": "1"}, "frequency_penalty is '1': it must be a number"),
        ({"top_k": 1.5}, "top_k is 1.5: it must be a whole number"),
        ({"dry_multiplier": -1.0}, "dry_multiplier is -1.0: it must be 0"),
        ({"dry_base": 0.9}, "dry_base is 0.9"),
        ({"dry_allowed_length": 0}, "dry_allowed_length is 0"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n is -2"),
        ({"xtc_probability": 1.1}, "xtc_probability is 1.1"),
        ({"xtc_threshold": math.nan}, "xtc_threshold is nan"),
        ({"typical_p": 0.0}, "typical_p is 0.0"),
        ({"top_n_sigma": -1.0}, "top_n_sigma is -1.0"),
        ({"min_keep": -1}, "min_keep is -1"),
        ({"dynatemp_range": -1.0}, "dynatemp_range is -1.0"),
        ({"dynatemp_exponent": 0.0}, "dynatemp_exponent is 0.0"),
        ({"mirostat": 1}, r"mirostat is 1: it must be 0 \(off\) or 2"),
        ({"mirostat_tau": 0.0}, "mirostat_tau is 0.0"),
        ({"mirostat_eta": math.nan}, "mirostat_eta is nan"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        Sampler(**options)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.01, 0.8, 1.0, 5.0]),
        "top_k": st.integers(0, 40),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 29), st.floats(-100, 100), max_size=3),
        "dry_multiplier": st.floats(0, 3),
        "dry_allowed_length": st.integers(1, 3),
        "xtc_probability": st.floats(0, 1),
        "xtc_threshold": st.floats(0, 1),
        "typical_p": st.floats(0.01, 1),
        "top_n_sigma": st.floats(0, 5),
        "min_keep": st.integers(0, 50),
        "dynatemp_range": st.floats(0, 2),
        "dynatemp_exponent": st.floats(0.1, 3),
        "mirostat": st.sampled_from([0, 2]),
        "mirostat_tau": st.floats(0.1, 9),
    },
)
LOGITS = st.lists(st.one_of(st.floats(-50, 50, width=32), st.just(-math.inf)), min_size=30, max_size=30).filter(
    lambda values: max(values) > -math.inf
)


@settings(max_examples=80, deadline=None)
@given(LOGITS, st.lists(st.integers(0, 29), max_size=30), OPTIONS, st.integers(0, 1000))
def test_whatever_is_asked_for_a_possible_token_is_drawn(values, recent, options, seed):
    """And the same seed draws the same; the logits stay as they are."""
    logits = np.array(values, np.float32)
    one, two = (Sampler(Text(len(recent) // 2), seed=seed, **options) for _ in range(2))
    for _ in range(3):
        token = one.sample(logits, recent)
        assert two.sample(logits, recent) == token
        assert 0 <= token < 30 and logits[token] > -math.inf
    assert logits.tolist() == values


@settings(max_examples=60, deadline=None)
@given(LOGITS, OPTIONS)
def test_filters_leave_some_in_their_order(values, options):
    """At least one; each with its logit; ids in order, or the likeliest first."""
    logits = np.array(values, np.float32)
    chosen = checked(options)
    candidates = Candidates(logits, float(logits.max()))
    for step in STEPS:
        if issubclass(step, Filter):
            before = len(candidates)
            candidates = step(chosen, Text()).filter(candidates)
            assert 1 <= len(candidates) <= before
            assert candidates.logits.tolist() == logits[candidates.ids].tolist()
            rising = (np.diff(candidates.ids) > 0).all()
            falling = (np.diff(candidates.logits) <= 0).all() if np.isfinite(candidates.logits).all() else True
            assert rising or falling
            assert candidates.shares.sum() == pytest.approx(1)
