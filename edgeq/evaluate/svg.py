"""Plots as inline SVG, whose colours are the page's CSS classes: `s0` to `s6` for series, and `ink`, `grid`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 14, 46
SERIES = 7
LETTER, LINE = 8, 14  # of text


@dataclass(frozen=True)
class Point:
    """A named value at a place, with its standard error. `series`: its colour, where that says something; `quiet`: its
    name is shown only to who points at it."""

    name: str
    x: float
    y: float
    error: float
    series: int | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Bar:
    """A named value and its standard error; `loud` stands out."""

    name: str
    value: float
    error: float
    note: str = ""
    loud: bool = False


class Axis:
    """Values to pixels, linear or by their logarithm."""

    def __init__(self, low: float, high: float, first: float, last: float, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        self.low, self.high = (log10(low), log10(high)) if logarithmic else (low, high)
        if self.high <= self.low:
            self.high = self.low + 1
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        shown = log10(max(value, 1e-30)) if self.logarithmic else value
        part = min(max((shown - self.low) / (self.high - self.low), -0.02), 1.02)
        return round(self.first + part * (self.last - self.first), 1)

    def ticks(self, most: int = 6) -> list[float]:
        if self.logarithmic:
            found = [10.0**power for power in range(ceil(self.low - 1e-9), floor(self.high + 1e-9) + 1)]
            if len(found) < 3:
                found = [m * 10.0**power for power in range(floor(self.low), ceil(self.high) + 1) for m in (1, 2, 5)]
            lowest, highest = 10 ** (self.low - 1e-9), 10 ** (self.high + 1e-9)
            return [value for value in found if lowest <= value <= highest]
        rough = (self.high - self.low) / most
        power = 10.0 ** floor(log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        first = ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, floor(self.high / step + 1e-9) + 1)]


def scatter(points: Sequence[Point], x_name: str, y_name: str, line: Sequence[Point] = ()) -> str:
    """Values over sizes, each with an error bar of one standard error, and its name beside it; `line` joins some,
    and names are below it then."""
    height = 340
    lows, highs = [p.y - p.error for p in points], [p.y + p.error for p in points]
    logarithmic = min(lows) > 0 and max(highs) > 8 * min(lows)
    low = min(lows) / 1.5 if logarithmic else 0.0
    y = Axis(low, max(highs) * (1.5 if logarithmic else 1.1), height - BOTTOM, TOP, logarithmic)
    spread = max(max(p.x for p in points) - min(p.x for p in points), 0.1 * max(p.x for p in points))
    x = Axis(
        max(0.0, min(p.x for p in points) - 0.12 * spread), max(p.x for p in points) + 0.3 * spread, LEFT, WIDTH - RIGHT
    )
    parts = [*_frame(x, y, x_name, y_name, height)]
    taken: list[tuple[float, float, float]] = []
    if line:
        places = " ".join(f"{x(point.x)},{y(point.y)}" for point in line)
        parts.append(f'<polyline class="front" fill="none" points="{places}"/>')
    for number, point in enumerate(points):
        series = number if point.series is None else point.series
        px, py, upper, lower = x(point.x), y(point.y), y(point.y + point.error), y(point.y - point.error)
        name = "" if point.quiet else _named(point.name, px, py, taken if line else None)
        label = escape(f"{point.name}: {_number(point.x)} {x_name}, {y_name} {point.y:.4g} ± {point.error:.2g}")
        parts.append(
            f'<g class="s{series % SERIES}"><title>{label}</title>'
            f'<line class="stroke" x1="{px}" x2="{px}" y1="{lower}" y2="{upper}"/>'
            f'<circle class="fill ring" cx="{px}" cy="{py}" r="6"/>{name}</g>'
        )
    return _svg(parts, height, f"{y_name} over {x_name}")


def _named(name: str, px: float, py: float, taken: list[tuple[float, float, float]] | None) -> str:
    """A point's name beside it; or to the left below it, and below names (left, right, y) that are there already."""
    if taken is None:
        return f'<text class="ink" x="{px + 11}" y="{py + 4}">{escape(name)}</text>'
    left, right, y = px - 8 - LETTER * len(name), px - 8, py + 16
    while any(left < other and one < right and abs(y - height) < LINE for one, other, height in taken):
        y += LINE
    taken.append((left, right, y))
    return f'<text class="ink" x="{right}" y="{y}" text-anchor="end">{escape(name)}</text>'


def histogram(
    edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], x_name: str, median: Sequence[float]
) -> str:
    """Shares of positions per bin, an outline per series, on a logarithmic axis; a tick at each median."""
    height = 300
    shares = [[100 * count / max(sum(counts), 1) for count in counts] for _, counts in series]
    used = [i for i in range(len(edges) - 1) if any(share[i] for share in shares)] or [0]
    first, last = max(used[0] - 1, 0), min(used[-1] + 2, len(edges) - 1)
    x = Axis(edges[first], edges[last], LEFT, WIDTH - RIGHT, True)
    y = Axis(0, 1.08 * max(max(share) for share in shares), height - BOTTOM, TOP)
    parts = [*_frame(x, y, x_name, "% of positions", height)]
    for number, ((name, _), share) in enumerate(zip(series, shares, strict=True)):
        path = [f"M{x(edges[first])},{y(0)}"]
        for i in range(first, last):
            path.append(f"V{y(share[i])}H{x(edges[i + 1])}")
        outline = "".join(path) + f"V{y(0)}"
        middle = x(median[number])
        parts.append(
            f'<g class="s{number % SERIES}"><title>{escape(name)}: median {median[number]:.4g}</title>'
            f'<path class="area" d="{outline}"/><path class="stroke" fill="none" d="{outline}"/>'
            f'<line class="stroke dash" x1="{middle}" x2="{middle}" y1="{TOP}" y2="{height - BOTTOM}"/></g>'
        )
    return _svg(parts, height, f"distribution of {x_name}")


def courses(series: Sequence[tuple[str, Sequence[float]]], x_name: str, y_name: str) -> str:
    """Values one after the other, from 1 on, a line per series; the axis is logarithmic."""
    height = 300
    values = [value for _, one in series for value in one if value > 0] or [1e-9]
    x = Axis(1, max(len(one) for _, one in series), LEFT, WIDTH - RIGHT)
    y = Axis(min(values) / 1.3, max(values) * 1.3, height - BOTTOM, TOP, True)
    parts = [*_frame(x, y, x_name, y_name, height)]
    for number, (name, one) in enumerate(series):
        places = [(x(place), y(value)) for place, value in enumerate(one, 1)]
        line = " ".join(f"{px},{py}" for px, py in places)
        dots = "".join(
            f'<circle class="fill" cx="{px}" cy="{py}" r="3">'
            f"<title>{escape(name)}, {x_name} {place}: {value:.4g}</title></circle>"
            for place, ((px, py), value) in enumerate(zip(places, one, strict=True), 1)
        )
        parts.append(f'<g class="s{number % SERIES}"><polyline class="stroke" fill="none" points="{line}"/>{dots}</g>')
    return _svg(parts, height, f"{y_name} by {x_name}")


def bars(rows: Sequence[Bar], x_name: str, series: int = 0) -> str:
    """Values as dots on lines from zero with error bars, a row each."""
    left, step = 190, 26
    height = TOP + step * len(rows) + BOTTOM
    x = Axis(0, 1.05 * max(row.value + _width(row.error) for row in rows), left, WIDTH - 150)
    y = Axis(0, 1, height - BOTTOM, TOP)
    parts = [*_frame(x, y, x_name, "", height, False)]
    for number, row in enumerate(rows):
        middle = TOP + step * number + step / 2
        kind = "loud" if row.loud else f"s{series % SERIES}"
        px, error = x(row.value), _width(row.error)
        label = escape(f"{row.name}: {row.value:.4g} ± {error:.2g} {row.note}")
        parts.append(
            f'<g class="{kind}"><title>{label}</title>'
            f'<text class="ink" x="{left - 10}" y="{middle + 4}" text-anchor="end">{escape(_short(row.name))}</text>'
            f'<line class="stem" x1="{left}" x2="{px}" y1="{middle}" y2="{middle}"/>'
            f'<line class="stroke" x1="{x(row.value - error)}" x2="{x(row.value + error)}" '
            f'y1="{middle}" y2="{middle}"/>'
            f'<circle class="fill ring" cx="{px}" cy="{middle}" r="5"/>'
            f'<text class="ink" x="{WIDTH - 138}" y="{middle + 4}">{row.value:.4g}</text>'
            f'<text class="faint" x="{WIDTH - 76}" y="{middle + 4}">{escape(row.note)}</text></g>'
        )
    return _svg(parts, height, x_name)


def diverging(rows: Sequence[tuple[str, int, int, str]], left_name: str, right_name: str) -> str:
    """(name, to the left, to the right, note) as bars from a middle line."""
    left, step = 230, 30
    height = TOP + 22 + step * len(rows) + 12
    most = max(1, *(max(row[1], row[2]) for row in rows))
    middle = left + (WIDTH - 150 - left) / 2
    reach = (WIDTH - 150 - left) / 2 - 30
    parts = [
        f'<text class="faint" x="{middle - 8}" y="{TOP + 8}" text-anchor="end">{escape(left_name)}</text>',
        f'<text class="faint" x="{middle + 8}" y="{TOP + 8}">{escape(right_name)}</text>',
        f'<line class="axis" x1="{middle}" x2="{middle}" y1="{TOP + 16}" y2="{height - 8}"/>',
    ]
    for number, (name, lost, gained, note) in enumerate(rows):
        top = TOP + 22 + step * number
        a, b = reach * lost / most, reach * gained / most
        parts.append(
            f"<g><title>{escape(f'{name}: {lost} {left_name}, {gained} {right_name}; {note}')}</title>"
            f'<text class="ink" x="{left - 10}" y="{top + 14}" text-anchor="end">{escape(_short(name, 32))}</text>'
            f'<rect class="lost" x="{middle - a - 1:.1f}" y="{top + 2}" width="{a:.1f}" height="16" rx="3"/>'
            f'<rect class="gained" x="{middle + 1}" y="{top + 2}" width="{b:.1f}" height="16" rx="3"/>'
            f'<text class="ink" x="{middle - a - 7:.1f}" y="{top + 14}" text-anchor="end">{lost}</text>'
            f'<text class="ink" x="{middle + b + 7:.1f}" y="{top + 14}">{gained}</text>'
            f'<text class="faint" x="{WIDTH - 140}" y="{top + 14}">{escape(note)}</text></g>'
        )
    return _svg(parts, height, f"{left_name} and {right_name}")


def legend(names: Sequence[str]) -> str:
    """Which colour is whose, where there are several."""
    if len(names) < 2:
        return ""
    items = (f'<li class="s{i % SERIES}"><i></i>{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'


def _frame(x: Axis, y: Axis, x_name: str, y_name: str, height: int, rows: bool = True) -> Iterable[str]:
    """Grid lines, numbers and names of both axes; of the rows' axis only where it has some."""
    bottom = height - BOTTOM
    for value in x.ticks():
        px = x(value)
        yield f'<line class="grid" x1="{px}" x2="{px}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text class="faint" x="{px}" y="{bottom + 18}" text-anchor="middle">{_number(value)}</text>'
    for value in y.ticks(5) if rows else ():
        py = y(value)
        yield f'<line class="grid" x1="{x.first}" x2="{x.last}" y1="{py}" y2="{py}"/>'
        yield f'<text class="faint" x="{x.first - 8}" y="{py + 4}" text-anchor="end">{_number(value)}</text>'
    if rows:
        yield f'<line class="axis" x1="{x.first}" x2="{x.last}" y1="{bottom}" y2="{bottom}"/>'
        yield (
            f'<text class="faint" transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_name)}</text>'
        )
    else:
        yield f'<line class="axis" x1="{x.first}" x2="{x.first}" y1="{TOP}" y2="{bottom}"/>'
    middle = (x.first + x.last) / 2
    yield f'<text class="faint" x="{middle}" y="{height - 8}" text-anchor="middle">{escape(x_name)}</text>'


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _number(value: float) -> str:
    return f"{value:g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}"


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _width(error: float) -> float:
    """An error that can be drawn: of a single value there is none."""
    return error if isfinite(error) else 0.0
