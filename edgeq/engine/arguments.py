"""What callers pass to a model, checked before any work: each mistake is a UsageError of one line."""

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from edgeq.decode.sampler_steps import Sampling, checked
from edgeq.errors import UsageError

MOST_LOGPROBS = 1000


def check_numbers(max_tokens: int | None, logprobs: int | None, sampling: Sampling) -> None:
    """UsageError for an option that there is none of, for what is no number, and for what cannot work."""
    seed = sampling.get("seed")
    if isinstance(seed, int) and seed < 0:
        raise UsageError(f"seed is {seed}: give 0 or more, or none at all for another text each time")
    checked(sampling, ("max_tokens", "stop", "logprobs"))
    for name, value in {"max_tokens": max_tokens, "logprobs": logprobs}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise UsageError(f"{name} is {value!r}: it must be a whole number")
    if max_tokens is not None and max_tokens < 0:
        raise UsageError(f"max_tokens is {max_tokens}: it must be 0 or more, or None")
    if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
        raise UsageError(f"logprobs is {logprobs}: give 0 to {MOST_LOGPROBS} likeliest tokens, or None")


def check_count(n: object) -> int:
    """How many answers are asked for. UsageError for what is no number of 1 or more."""
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise UsageError(f"n is {n!r}: it must be a whole number, 1 or more, or None")
    return int(n)


def check_loading(
    threads: object,
    context: object,
    kv: object,
    chat_template: object,
    parallel: object,
    draft: object,
    mmproj: object,
    states: object,
) -> None:
    """UsageError for options of `load` that are not of their type; their values are for others to check."""
    for name, value in {"threads": threads, "context": context, "parallel": parallel}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise UsageError(f"{name} is {value!r}: it must be a whole number, or None")
        if value is not None and int(value) >= 1 << 31:
            raise UsageError(f"{name} is {value}: it must be less than 2**31")
    for name, value in {"kv": kv, "chat_template": chat_template}.items():
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} is a {type(value).__name__}: it must be a str, or None")
    for name, value in {"draft": draft, "mmproj": mmproj}.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise UsageError(f"{name} is {value!r}: it must be a path, or None")
    if draft is not None and states:
        raise UsageError("a draft guesses tokens, and a model that is loaded to embed texts writes none: leave it out")


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """UsageError for what is no conversation."""
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise UsageError('messages must be a list of dicts, e.g. [{"role": "user", "content": "Hello"}]')


def stop_strings(stop: str | Sequence[str]) -> list[str]:
    """The stop strings as a list."""
    if isinstance(stop, str):
        return [stop]
    if not isinstance(stop, Iterable) or not all(isinstance(text, str) for text in stop):
        raise UsageError(f"stop must be a str or a sequence of them, not {stop!r}")
    return list(stop)


def token_ids(tokens: Sequence[int]) -> list[int]:
    """Token ids as plain integers."""
    numbers = isinstance(tokens, Iterable) and not isinstance(tokens, str | bytes | bytearray)
    if not numbers or not all(isinstance(token, Integral) for token in tokens):
        raise UsageError(f"a prompt must be a str or a sequence of token ids, not {type(tokens).__name__}")
    return [int(token) for token in tokens]
