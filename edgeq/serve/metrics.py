"""What the server counts, as Prometheus reads it."""

from collections import Counter
from collections.abc import Iterable

_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # seconds


class Histogram:
    """How often a time was below each bound."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        place = next((i for i, bound in enumerate(_BOUNDS) if seconds <= bound), len(_BOUNDS))
        self.counts[place] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> Iterable[str]:
        sum_ = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self.counts, strict=True):
            sum_ += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {sum_}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {sum_}"


class Metrics:
    """Counters since the server's start."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()  # by path and status
        self.ends: Counter[tuple[str, str]] = Counter()  # texts, by model and why they ended
        self.tokens: Counter[tuple[str, str]] = Counter()  # by model and kind
        self.first_token: dict[str, Histogram] = {}  # by model

    def count(self, model: str, reason: str, computed: int, cached: int, generated: int, first_s: float | None) -> None:
        """A text has ended: tokens of its prompt that were computed and kept, tokens generated, seconds from the
        request to its first token."""
        self.ends[model, reason] += 1
        for kind, number in (("prompt", computed), ("cached", cached), ("generated", generated)):
            self.tokens[model, kind] += number
        if first_s is not None:
            self.first_token.setdefault(model, Histogram()).add(first_s)

    def text(self, gauges: Iterable[tuple[str, str, int]]) -> str:
        """In Prometheus' text format 0.0.4; `gauges` are (name, model, value)."""
        rows = ["# TYPE edgeq_http_answers_total counter"]
        for (path, status), number in sorted(self.answers.items()):
            rows.append(f'edgeq_http_answers_total{{path="{path}",status="{status}"}} {number}')
        rows.append("# TYPE edgeq_texts_total counter")
        for (model, reason), number in sorted(self.ends.items()):
            rows.append(f'edgeq_texts_total{{{_label(model)},reason="{reason}"}} {number}')
        rows.append("# TYPE edgeq_tokens_total counter")
        for (model, kind), number in sorted(self.tokens.items()):
            rows.append(f'edgeq_tokens_total{{{_label(model)},kind="{kind}"}} {number}')
        rows.append("# TYPE edgeq_first_token_seconds histogram")
        for model, histogram in sorted(self.first_token.items()):
            rows += histogram.lines("edgeq_first_token_seconds", _label(model))
        gauges = list(gauges)
        for name in sorted({name for name, _, _ in gauges}):
            rows.append(f"# TYPE {name} gauge")
            rows += [f"{name}{{{_label(model)}}} {value}" for own, model, value in gauges if own == name]
        return "\n".join(rows) + "\n"


def _label(model: str) -> str:
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'model="{escaped}"'
