"""The steps from logits to a token: a class each, and the table of them.

A step says its options itself (see `Option`); the command line, /set, the files that models come with, checks and docs
follow. A new one is a class, its row in STEPS, and for type checkers its keys in `Sampling`. Nothing here imports NumPy
before a token is drawn, as `--help` asks for the options too.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from edgeq.decode.drawing import Draw as Draw
from edgeq.decode.dry import Dry
from edgeq.decode.option import Option
from edgeq.decode.penalties import Allowed, AllowedTokens, FrequencyPenalties, LogitBias, RepetitionPenalty
from edgeq.decode.step import Filter as Filter
from edgeq.decode.step import Processor as Processor
from edgeq.decode.step import Step as Step
from edgeq.decode.truncation import MinP, TopK, TopNSigma, TopP, Typical, Xtc
from edgeq.errors import UsageError


class Sampling(TypedDict, total=False):
    """How tokens are drawn; what is left out is as the model's files say, or else the default."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repetition_window: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    typical_p: float
    top_n_sigma: float
    min_keep: int
    dynatemp_range: float
    dynatemp_exponent: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    allowed: Allowed | None
    seed: int | None


# In the order in which they work, llama.cpp's but for one: min_p comes before top_p. Both keep the likeliest so many,
# and count probabilities among the same tokens, so that which comes first makes no difference, and there is less to
# sort.
STEPS: tuple[type[Step], ...] = (
    LogitBias,
    AllowedTokens,
    RepetitionPenalty,
    FrequencyPenalties,
    Dry,
    TopNSigma,
    TopK,
    Typical,
    MinP,
    TopP,
    Xtc,
    Draw,
)


def options() -> dict[str, Option[Any]]:
    """Name -> option of every step, in the order of `Sampling`, in which they are told."""
    found = {option.name: option for step in STEPS for option in step.options()}
    return {name: found[name] for name in (*Sampling.__annotations__, *found)}


def names() -> dict[str, str]:
    """Every name of an option, its own and those that other programs have for it -> its own."""
    known = options()
    further = {flag: name for name, option in known.items() for flag in option.flags if flag.startswith("--")}
    return {flag[2:].replace("-", "_"): name for flag, name in further.items()} | {name: name for name in known}


def checked(sampling: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """The value of every option. Raises UsageError for a value that cannot work, and for an option that there is none
    of: `others` are names that may be meant as well."""
    known = options()
    for name in sampling.keys() - known.keys():
        likely = difflib.get_close_matches(name, [*known, *others], 1)
        raise UsageError(f"there is no option {name!r}" + (f": did you mean {likely[0]!r}?" if likely else ""))
    values = {}
    for name, option in known.items():
        values[name] = sampling.get(name, option.default)
        option.check(values[name])
    return values
