"""Counts what came in, and says where it is not what the file was calibrated with."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeq.drift.bins import I64, Stability
from edgeq.drift.look import LENGTH, F32Array, Looker, sampled
from edgeq.drift.seen import Seen, Slice, directed

ALERT, WARNING = "alert", "warning"
INDEX = {ALERT: 0.25, WARNING: 0.1}  # of population stability, see bins.py
OUTSIDE = {ALERT: 1e-2, WARNING: 1e-3}  # share of values beyond all that calibration saw
PERPLEXITY = {ALERT: 2.5, WARNING: 1.75}  # times that of the nearest slice of calibration
ENOUGH = 6  # texts: of fewer nothing is said of perplexity and range
RECENT = 3  # texts that tell what matrices read while a model serves: those from before a change would hide it
ENOUGH_TOKENS = 16  # texts whose tokens alone are known


@dataclass(frozen=True)
class Alert:
    """What is above a limit.

    level  ALERT or WARNING
    slice  of what came in
    where  the matrix whose input it is, "tokens" or "perplexity"
    what   "psi", "outside" or "times"
    """

    level: str
    slice: str
    where: str
    what: str
    value: float
    limit: float
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.slice}: {self.text}"


@dataclass(frozen=True)
class Report:
    """Of the texts of a slice.

    texts, tokens   that came in; `looked_at`: texts whose rows are known
    perplexity      at the last positions of these, NaN of none; `calibrated`: that of the nearest slice of calibration
    nearest         that slice: whose tokens are most alike
    token_index     PSI of the tokens, less what chance gives
    indices         PSI of what matrices read, by name, less what chance gives
    outside         shares of values that are beyond all that calibration saw, by name
    alerts          alerts and warnings, the worst first
    """

    slice: str
    texts: int
    tokens: int
    looked_at: int
    perplexity: float
    calibrated: float
    nearest: str
    token_index: float
    indices: Mapping[str, float]
    outside: Mapping[str, float]
    alerts: list[Alert] = field(default_factory=list)

    @property
    def alarmed(self) -> bool:
        """Whether there is an alert, and not warnings alone."""
        return any(one.level == ALERT for one in self.alerts)

    @property
    def enough(self) -> bool:
        """Whether there is enough to judge by all that is known."""
        return self.looked_at >= ENOUGH

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        known = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in self._items()}
        return {**known, "alarmed": self.alarmed, "alerts": [vars(one) for one in self.alerts]}

    def _items(self) -> Iterator[tuple[str, Any]]:
        yield from ((key, value) for key, value in vars(self).items() if key != "alerts")

    def gauges(self) -> dict[str, float]:
        """Numbers by name, for whatever shows how a server does: those of all matrices, too."""
        found = {
            "texts": float(self.texts),
            "looked_at": float(self.looked_at),
            "perplexity": self.perplexity,
            "perplexity_calibrated": self.calibrated,
            "psi_tokens": self.token_index,
            "psi_worst": max(self.indices.values(), default=0.0),
            "outside_worst": max(self.outside.values(), default=0.0),
            "alerts": float(sum(one.level == ALERT for one in self.alerts)),
            "warnings": float(sum(one.level == WARNING for one in self.alerts)),
        }
        found |= {f"psi.{name}": value for name, value in self.indices.items()}
        return found | {f"outside.{name}": value for name, value in self.outside.items()}


@dataclass(frozen=True)
class LookedAt:
    """One that was looked at: its rows in the sample, its loss; by matrix counts of values and directions, how many
    values were outside, of how many."""

    rows: int
    loss: float
    values: dict[str, I64]
    directions: dict[str, I64]
    outside: dict[str, int]
    seen: dict[str, int]


class Tally:
    """What came in of one slice. `window`: only so many texts count, the latest, of what matrices read so many as
    `recent` says, and of those whose tokens alone are known so many as `token_window`; None: all."""

    def __init__(
        self,
        seen: Seen,
        name: str,
        window: int | None = None,
        token_window: int | None = None,
        recent: int | None = None,
    ) -> None:
        self.seen, self.name, self._recent = seen, name, recent
        self._looked: deque[LookedAt] = deque(maxlen=window)
        self._tokens: deque[tuple[int, I64]] = deque(maxlen=token_window)
        self._texts = 0

    def count(self, tokens: Sequence[int]) -> None:
        """Count the tokens of a text."""
        self._texts += 1
        self._tokens.append((len(tokens), self.seen.tokens.counts(tokens)))

    def look(self, looker: Looker, tokens: Sequence[int]) -> None:
        """Count what matrices read of a text, of at least LEAST tokens. Raises as `Session.eval` does."""
        self.add(self.read(looker, tokens))

    def read(self, looker: Looker, tokens: Sequence[int]) -> LookedAt:
        """What `add` counts: two steps, for who must not be kept waiting. Raises as `Session.eval` does."""
        own = LookedAt(sampled(min(len(tokens), LENGTH)), 0.0, {}, {}, {}, {})

        def shown(name: str, every: F32Array, sample: F32Array) -> None:
            known = self.seen.inputs[name]
            own.outside[name], own.seen[name] = known.outside(every), every.size
            own.values[name] = known.values.counts(sample.reshape(-1, 1))
            own.directions[name] = known.directions.counts(directed(sample))

        loss = looker.look(tokens, shown)
        return LookedAt(own.rows, loss, own.values, own.directions, own.outside, own.seen)

    def add(self, text: LookedAt) -> None:
        """Count a text that was looked at."""
        self._looked.append(text)

    def report(self) -> Report:
        """What is known by now."""
        looked, seen = list(self._looked), self.seen
        tokens = sum(count for count, _ in self._tokens)
        token_counts = sum((one for _, one in self._tokens), np.zeros_like(seen.tokens.shares, np.int64))
        texts = min(float(len(self._tokens)), tokens / seen.length)
        known = seen.tokens.stability(token_counts, texts, seen.texts)
        near = self._nearest(token_counts)
        perplexity = float(np.exp(np.mean([one.loss for one in looked]))) if looked else math.nan
        indices = self._indices(looked if self._recent is None else looked[-self._recent :])
        outside = {
            name: sum(one.outside[name] for one in looked) / sum(one.seen[name] for one in looked) for name in indices
        }
        alerts = [*self._token_alerts(known, near), *self._look_alerts(near, perplexity, indices, outside)]
        alerts.sort(key=lambda one: (one.level != ALERT, -one.value / one.limit))
        return Report(
            self.name,
            self._texts,
            tokens,
            len(looked),
            perplexity,
            near.perplexity,
            near.name,
            known.value,
            {name: one.value for name, one in indices.items()},
            outside,
            alerts,
        )

    def _token_alerts(self, known: Stability, near: Slice) -> list[Alert]:
        if len(self._tokens) < ENOUGH_TOKENS or not known.sure:
            return []
        text = f"tokens are others than those of calibration, nearest {near.name}: PSI {known.value:.2f}"
        return self._above("tokens", "psi", known.value, INDEX, text)

    def _look_alerts(
        self, near: Slice, perplexity: float, indices: Mapping[str, Stability], outside: Mapping[str, float]
    ) -> Iterator[Alert]:
        number = len(self._looked)
        if number >= ENOUGH:
            times = perplexity / near.perplexity
            text = (
                f"perplexity {perplexity:.4g}, at calibration {near.perplexity:.4g} on {near.name}: {times:.1f} times"
            )
            yield from self._above("perplexity", "times", times, PERPLEXITY, text)
        for name, one in indices.items():
            where = f"{name} ({_layer(name)})"
            if one.sure and number >= min(ENOUGH, self._recent or ENOUGH):
                yield from self._above(name, "psi", one.value, INDEX, f"{where} reads other rows: PSI {one.value:.2f}")
            if number >= ENOUGH:
                text = f"{where} reads values out of range: {outside[name]:.2%}"
                yield from self._above(name, "outside", outside[name], OUTSIDE, text)

    def _indices(self, looked: Sequence[LookedAt]) -> dict[str, Stability]:
        """Of each matrix the larger one, of its values or its directions."""
        found = {}
        texts = min(float(len(looked)), sum(one.rows for one in looked) / sampled(self.seen.length))
        for name in looked[0].seen if looked else ():
            known = self.seen.inputs[name]
            values = np.sum([one.values[name] for one in looked], 0)
            directions = np.sum([one.directions[name] for one in looked], 0)
            found[name] = max(
                known.values.stability(values, texts, self.seen.texts),
                known.directions.stability(directions, texts, self.seen.texts),
                key=lambda one: (one.sure, one.value),
            )
        return found

    def _nearest(self, counts: I64) -> Slice:
        """The slice of calibration whose tokens are most alike."""
        if not counts.sum():
            return self.seen.slices[0]
        shares = counts / counts.sum()
        return min(self.seen.slices, key=lambda one: float(np.abs(one.shares - shares).sum()))

    def _above(self, where: str, what: str, value: float, limits: Mapping[str, float], text: str) -> list[Alert]:
        """An alert or a warning, or neither."""
        for level, limit in limits.items():
            if value > limit:
                return [Alert(level, self.name, where, what, value, limit, f"{text}, above {limit:g}")]
        return []


def _layer(name: str) -> str:
    """The layer that a matrix is of."""
    parts = name.split(".")
    return f"layer {parts[1]}" if parts[0] == "blk" and len(parts) > 2 else parts[0]
