"""What a file says of the text that it was calibrated with: the asset `calibration.json`, see formats/container.md.

Of each input of a matrix there are the distribution of all its values, and that of its rows in some directions, sums of
its columns with signs that never change: values as a whole look much the same for any text, directions do not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File
from edgeq.drift.bins import F64, I64, Bins, Histograms
from edgeq.errors import FormatError, UsageError

ASSET = "calibration.json"
VERSION = 1
DIRECTIONS = 16
DIGITS = 4  # of a number, which are enough to compare with
EVEN = 0.005  # shares that differ no more are said to be equal

F32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Input:
    """What a matrix read. `low`, `high`: the least and the greatest value of all rows; `values`: a histogram of those
    of a sample of the rows; `directions`: DIRECTIONS histograms of these rows."""

    low: float
    high: float
    values: Histograms
    directions: Histograms

    def outside(self, x: F32Array) -> int:
        """How many of the values are beyond all that was seen."""
        return int(np.count_nonzero((x < self.low) | (x > self.high)))


@cache
def signs(columns: int) -> F64:
    """f64 [columns, DIRECTIONS], -1 and 1: bits of the column's number, counted from 1, after the finalizer of
    MurmurHash3 has mixed it."""
    h = np.arange(1, columns + 1, dtype=np.uint64)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    bits = (h[:, None] >> np.arange(DIRECTIONS, dtype=np.uint64)) & np.uint64(1)
    return 1.0 - 2.0 * bits.astype(np.float64)


def directed(x: F32Array) -> F64:
    """Rows f32 [rows, columns] in all directions, f64 [rows, DIRECTIONS]."""
    found: F64 = np.einsum("rc,cd->rd", x.astype(np.float64), signs(x.shape[1]))  # adds in one order on any machine
    return found


@dataclass(frozen=True)
class Tokens(Bins):
    """Which tokens were read. `groups`: ids, those of a bin together; the last bin is of all others."""

    groups: tuple[tuple[int, ...], ...]

    def counts(self, tokens: Sequence[int] | npt.NDArray[np.int32]) -> I64:
        """int64 [1, bins]: how many of the tokens fall into each."""
        places, last = self._places, len(self.groups)
        return np.bincount([places.get(int(one), last) for one in tokens], minlength=last + 1)[None]

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {token: place for place, group in enumerate(self.groups) for token in group}


@dataclass(frozen=True)
class Slice:
    """One of the texts: its tokens in number, the model's perplexity, and shares of its tokens in the bins of all, f64
    [1, bins]."""

    name: str
    tokens: int
    perplexity: float
    shares: F64


@dataclass(frozen=True)
class Seen:
    """All of it. `texts`: how many were looked at, of `length` tokens each; `start`: the token that each began with, or
    none; `inputs`: by a matrix's name."""

    texts: int
    length: int
    start: tuple[int, ...]
    inputs: Mapping[str, Input]
    tokens: Tokens
    slices: tuple[Slice, ...]

    def part(self, tokens: Sequence[int], place: float) -> list[int]:
        """A part of a text as those that were looked at: after the token that they began with, from some place on, 0
        the text's beginning, 1 as near to its end as it goes."""
        start = [*self.start]
        rest = [*tokens[len(start) :]] if [*tokens[: len(start)]] == start else [*tokens]
        room = self.length - len(start)
        first = int(place * max(len(rest) - room, 0))
        return start + rest[first : first + room]

    @staticmethod
    def most_bytes(inputs: int, slices: int) -> int:
        """Of the asset of so many."""
        return 2200 * inputs + 400 * slices + 12_000

    def content(self) -> bytes:
        """The asset."""
        whole = {
            "version": VERSION,
            "texts": self.texts,
            "length": self.length,
            "start": self.start,
            "inputs": [
                {
                    "name": name,
                    "low": _short(one.low, 2 * DIGITS),
                    "high": _short(one.high, 2 * DIGITS),
                    "values": _plain_histograms(one.values),
                    "directions": _plain_histograms(one.directions),
                }
                for name, one in self.inputs.items()
            ],
            "tokens": {
                "groups": self.tokens.groups,
                "shares": _plain(self.tokens.shares),
                "spread": _short(self.tokens.spread),
            },
            "slices": [
                {
                    "name": one.name,
                    "tokens": one.tokens,
                    "perplexity": _short(one.perplexity),
                    "shares": _plain(one.shares),
                }
                for one in self.slices
            ],
        }
        return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()


def seen_by(file: File) -> Seen:
    """What a file says. UsageError where it says nothing, FormatError where that is damaged."""
    if ASSET not in file.assets:
        how = "convert it with a calibration (edgeq calibrate, edgeq convert --calibration)"
        raise UsageError(f"{file.path}: does not say what it was calibrated with: {how}")
    return parse(file.asset(ASSET), file)


def parse(content: bytes, file: File) -> Seen:
    """What `Seen.content` gave. FormatError for anything else, and for what is not of this file's matrices."""

    def fail(what: str) -> NoReturn:
        raise FormatError(f"{file.path}: {ASSET} {what}: convert the model again")

    try:
        whole = json.loads(content)
        version = whole["version"]
        if version == VERSION:
            found = _seen(whole)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):  # what JSON can hold instead
        fail("is damaged")
    if version != VERSION:
        fail(f"is of version {str(version)[:20]}, and this edgeq knows {VERSION}")
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    if len(found.start) > 1 or not all(0 <= token < vocabulary for token in found.start):
        fail("begins with what is no token of the model")
    for name in found.inputs:
        if name not in file.tensors or len(file.tensors[name].shape) != 2:
            fail(f"names {name[:80]!r}, which is no matrix of the model")
    return found


def _seen(whole: Mapping[str, Any]) -> Seen:
    inputs = {str(one["name"]): _input(one) for one in whole["inputs"]}
    groups = tuple(tuple(map(int, group)) for group in whole["tokens"]["groups"])
    shares = _shares(whole["tokens"]["shares"], len(groups) + 1)
    tokens = Tokens(shares, _least(0, whole["tokens"]["spread"]), groups)
    slices = tuple(
        Slice(
            str(one["name"]),
            int(_least(0, one["tokens"])),
            _least(1e-9, one["perplexity"]),
            _shares(one["shares"], len(groups) + 1),
        )
        for one in whole["slices"]
    )
    texts, length = int(_least(1, whole["texts"])), int(_least(2, whole["length"]))
    if not inputs or not slices or len(shares) != 1 or any(len(one.shares) != 1 for one in slices):
        raise ValueError
    return Seen(texts, length, tuple(map(int, whole["start"])), inputs, tokens, slices)


def _input(one: Mapping[str, Any]) -> Input:
    values, directions = _histograms(one["values"]), _histograms(one["directions"])
    low, high = _number(one["low"]), _number(one["high"])
    if low > high or len(values.shares) != 1 or len(directions.shares) != DIRECTIONS:
        raise ValueError
    return Input(low, high, values, directions)


def _histograms(given: Mapping[str, Any]) -> Histograms:
    edges = np.array(given["edges"], np.float64)
    if edges.ndim != 2 or not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise ValueError
    bins = edges.shape[1] + 1
    shares = np.full((len(edges), bins), 1 / bins) if given["shares"] is None else _shares(given["shares"], bins)
    if len(shares) != len(edges):
        raise ValueError
    return Histograms(shares, _least(0, given["spread"]), edges)


def _shares(given: Any, bins: int) -> F64:
    found = np.array(given, np.float64)
    if found.ndim != 2 or found.shape[1] != bins or not (found >= 0).all() or (abs(found.sum(1) - 1) > 1e-3).any():
        raise ValueError
    return found


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not np.isfinite(given):
        raise ValueError
    return float(given)


def _least(least: float, given: Any) -> float:
    if not _number(given) >= least:
        raise ValueError
    return float(given)


def _plain_histograms(one: Histograms) -> dict[str, Any]:
    even = np.abs(one.shares - 1 / one.shares.shape[1]).max() < EVEN
    return {
        "edges": _plain(one.edges),
        "shares": None if even else _plain(one.shares),
        "spread": _short(one.spread),
    }


def _plain(numbers: F64) -> list[list[float]]:
    return [list(map(_short, row)) for row in numbers]


def _short(value: float, digits: int = DIGITS) -> float:
    return float(f"{value:.{digits}g}")
