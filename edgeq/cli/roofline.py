"""What a test asks of the machine, what the machine can do at most, and how near a measured time comes to that."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, prod
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Protocol, Self

from edgeq.errors import UsageError

FEW = 0.05  # of the multiply-adds: so few make no difference

if TYPE_CHECKING:
    from edgeq.runtime.session import Session


class _Tensor(Protocol):
    """What `Work` needs to know of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Case:
    """A test: `tokens` tokens after `depth` tokens that are already in the KV cache.

    kind: "pp", a prompt, taken in batches; or "tg", text generation, one token after the other
    """

    kind: str
    tokens: int
    depth: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a name such as pp512 or tg128@d4096. Raises UsageError."""
        found = re.fullmatch(r"(pp|tg)([1-9]\d*)(?:@d(\d+))?", text)
        if found is None:
            raise UsageError(f"{text!r} is no test: give e.g. pp512, tg128 or tg128@d4096")
        return cls(found[1], int(found[2]), int(found[3] or 0))

    def __str__(self) -> str:
        return f"{self.kind}{self.tokens}" + (f"@d{self.depth}" if self.depth else "")

    @property
    def positions(self) -> int:
        """Of the context, at the end."""
        return self.depth + self.tokens


@dataclass(frozen=True)
class Work:
    """What tokens ask of the machine.

    nbytes: bytes of the matrices that a token reads
    layers, head: multiply-adds per bits of a weight's code, in the layers and for the logits
    kv: bytes of keys and values of one position, in all layers that look back over so many positions; 0 is all
    """

    nbytes: int
    layers: Mapping[int, int]
    head: Mapping[int, int]
    kv: Mapping[int, int] = field(default_factory=dict)

    @property
    def bits(self) -> list[int]:
        """Widths of the codes, the most used one first; 16 and 32 are plain weights."""
        total = Counter(self.layers) + Counter(self.head)
        return [bits for bits, _ in total.most_common()]

    def multiply_adds(self, case: Case) -> dict[int, int]:
        """Of weights, per bits of a code. A prompt needs logits for its last token only. Attention is not counted."""
        heads = 1 if case.kind == "pp" else case.tokens
        return {b: case.tokens * self.layers.get(b, 0) + heads * self.head.get(b, 0) for b in self.bits}

    def bytes_read(self, case: Case) -> int | None:
        """Weights, and keys and values of the positions that attention sees; None for a prompt, whose tokens share
        what is read."""
        if case.kind == "pp":
            return None
        ends = range(case.depth + 1, case.positions + 1)
        seen = sum(nbytes * min(end, window or end) for window, nbytes in self.kv.items() for end in ends)
        return case.tokens * self.nbytes + seen


def code_bits(block_type: str) -> int:
    """Bits of the codes that kernels multiply, which the names of block types tell: 4 of Q4_K and Q2_K, 16 of BF16."""
    bits = int(re.findall(r"\d+", block_type)[0])
    return bits if bits in (16, 32) else min(max(bits, 4), 8)


def work(tensors: Mapping[str, _Tensor], kv: Mapping[int, int] | None = None, experts_read: float = 1.0) -> Work:
    """The work of a model's tensors. The embedding of a token is one row, unless the same matrix gives the logits; of
    experts' matrices, those of three dimensions, a token reads the part `experts_read`; of those of images none."""
    from edgeq.models.image_tower import is_of_images
    from edgeq.runtime.fit import LOOKED_UP

    head_name = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    nbytes, layers, head = 0, Counter[int](), Counter[int]()
    for name, tensor in tensors.items():
        if len(tensor.shape) < 2 or name.endswith(LOOKED_UP) or (name == "token_embd.weight" and name != head_name):
            continue
        if is_of_images(name):
            continue
        part = experts_read if len(tensor.shape) == 3 else 1.0
        nbytes += round(tensor.nbytes * part)
        (head if name == head_name else layers)[code_bits(tensor.type)] += round(prod(tensor.shape) * part)
    return Work(nbytes, layers, head, kv or {})


def kv_read(session: "Session") -> dict[int, int]:
    """`Work.kv` of a session."""
    total = Counter[int]()
    for group in session.plan.groups:
        total[group.window or 0] += sum(layer.position_bytes for layer in group.layers)
    return dict(total)


@dataclass(frozen=True)
class Limits:
    """What the machine does at most with the model's threads.

    read_bandwidth: bytes per second from memory
    dot_peak: multiply-adds per second of byte dot products from L1, per bits of a code
    """

    read_bandwidth: float
    dot_peak: Mapping[int, float]

    def dot_seconds(self, multiply_adds: Mapping[int, int]) -> float | None:
        """Time that the dot products alone would take; None where many weights are not codes (a router's are few)."""
        dots = {bits: n for bits, n in multiply_adds.items() if bits in self.dot_peak}
        if sum(dots.values()) < (1 - FEW) * sum(multiply_adds.values()):
            return None
        return sum(n / self.dot_peak[bits] for bits, n in dots.items())


def middle(measured: Sequence[Limits]) -> Limits:
    """The median of limits that were measured one after the other: a shared machine's drift within minutes."""
    dots = {bits: median(limits.dot_peak[bits] for limits in measured) for bits in measured[0].dot_peak}
    return Limits(median(limits.read_bandwidth for limits in measured), dots)


def figures(case: Case, seconds: float, asked: Work, limits: Limits) -> dict[str, float | None]:
    """Rates of a test that took `seconds`, and their shares of the limits; None where one does not apply."""
    operations, read = asked.multiply_adds(case), asked.bytes_read(case)
    total, dots = sum(operations.values()), limits.dot_seconds(operations)
    return {
        "multiply_adds_per_second": total / seconds,
        "dot_peak": total / dots if dots else None,
        "of_dot_peak": dots / seconds if dots else None,
        "bytes_per_second": None if read is None else read / seconds,
        "read_bandwidth": limits.read_bandwidth,
        "of_read_bandwidth": None if read is None else read / seconds / limits.read_bandwidth,
    }


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` per cent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True)
class Result:
    """One test: the clock at the start of each repetition and after each of its steps; limits of the same minutes."""

    case: Case
    clocks: list[list[float]]
    limits: Limits
    resident: int | None = None  # bytes in memory when it had ended

    @property
    def seconds(self) -> list[float]:
        return [clock[-1] - clock[0] for clock in self.clocks]

    @property
    def rate(self) -> float:
        """Tokens per second, the mean over repetitions."""
        return mean(self.case.tokens / s for s in self.seconds)

    @property
    def spread(self) -> float:
        """Standard deviation of the tokens per second."""
        rates = [self.case.tokens / s for s in self.seconds]
        return stdev(rates) if len(rates) > 1 else 0.0

    def figures(self, asked: Work) -> dict[str, float | None]:
        """The median repetition against the limits; seconds of a token, or until the first."""
        found = figures(self.case, median(self.seconds), asked, self.limits)
        if self.case.kind == "pp":
            return found | {"first_token_seconds": median(self.seconds)}
        steps = [after - before for clock in self.clocks for before, after in pairwise(clock)]
        return found | {f"token_seconds_p{p}": percentile(steps, p) for p in (50, 95, 99)}


@dataclass
class Course:
    """Speed over time: tokens per second of one interval after the other, each at least `every` seconds long."""

    every: float
    rates: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, tokens per second
    tokens: int = 0
    worked: float = 0.0

    def add(self, now: float, seconds: float) -> bool:
        """A token that took `seconds` ended `now` seconds after the start; whether it completed an interval."""
        self.tokens += 1
        self.worked += seconds
        if self.worked < self.every:
            return False
        self.end(now)
        return True

    def end(self, now: float) -> None:
        """Close the interval that has begun."""
        if self.tokens:
            self.rates.append((now, self.tokens / self.worked))
        self.tokens, self.worked = 0, 0.0

    def summary(self) -> dict[str, float]:
        rates = [rate for _, rate in self.rates]
        return {"min": min(rates), "median": median(rates), "max": max(rates)}
