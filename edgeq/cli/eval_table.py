"""What `edgeq eval` prints: tables of what was found out."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeq.cli.units import binary_size

if TYPE_CHECKING:
    from edgeq.evaluate.measure import Divergence
    from edgeq.evaluate.report import Candidate, Report
    from edgeq.evaluate.statistics import Estimate

ABREAST = 4  # models beside each other
SHOWN = 3  # answers
WIDE = 76  # characters of an answer's line


def lines(report: "Report") -> Iterator[str]:
    """The report, line by line."""
    yield from _head(report)
    for first in range(0, len(report.candidates), ABREAST):
        yield ""
        yield from _metrics(report.candidates[first : first + ABREAST])
    yield from _slices(report)
    yield from _tasks(report)
    yield from _changes(report)


def _head(report: "Report") -> Iterator[str]:
    if report.reference_name is not None:
        yield f"reference  {report.reference_name}"
    if report.texts:
        loss = report.candidates[0].loss
        positions = 0 if loss is None else loss.positions
        chunks = f"{report.chunks} chunk{'s' if report.chunks != 1 else ''} of {report.ctx_size} tokens"
        yield f"text       {', '.join(report.texts)}: {chunks}, {positions} positions count"


def _metrics(candidates: Sequence["Candidate"]) -> Iterator[str]:
    """A row per number, a column per model."""
    rows: list[list[str]] = [["", *(candidate.name for candidate in candidates)]]

    def row(name: str, of: Callable[["Candidate"], str | None]) -> None:
        cells = [of(candidate) for candidate in candidates]
        if any(cell is not None for cell in cells):
            rows.append([name, *(cell or "" for cell in cells)])

    def loss(of: Callable[["Divergence"], str | None]) -> Callable[["Candidate"], str | None]:
        return lambda candidate: None if candidate.loss is None else of(candidate.loss)

    row("file", lambda c: binary_size(c.nbytes))
    row("bits per weight", lambda c: f"{c.bits_per_weight:.3f}")
    row("memory", lambda c: binary_size(sum(c.memory.values())))
    row("perplexity", loss(lambda d: estimate(d.perplexity, 4)))
    row("  of the reference", loss(lambda d: estimate(d.base_perplexity, 4)))
    row("  ratio", loss(lambda d: estimate(d.ratio, 5)))
    row("KL divergence, mean", loss(lambda d: estimate(d.kl, 6)))
    for percent, name in (
        ("50", "  median"),
        ("90", "  90 %"),
        ("95", "  95 %"),
        ("99", "  99 %"),
        ("99.9", "  99.9 %"),
    ):
        row(name, loss(lambda d, percent=percent: percentile(d.kl_percentiles, percent, 6)))  # type: ignore[misc]
    row("  maximum", loss(lambda d: None if d.kl_max is None else f"{d.kl_max:.6f}"))
    row("same top token, %", loss(lambda d: estimate(d.same_top, 3, 100)))
    row("delta p, mean %", loss(lambda d: estimate(d.delta_p, 3, 100)))
    row("  RMS %", loss(lambda d: estimate(d.delta_p_rms, 3, 100)))
    for percent in ("1", "5", "95", "99"):
        row(f"  {percent} %", loss(lambda d, percent=percent: percentile(d.delta_p_percentiles, percent, 3, 100)))  # type: ignore[misc]
    row("error of layers, first", lambda c: f"{c.layers[0]:.5f}" if c.layers else None)
    row("  last", lambda c: f"{c.layers[-1]:.5f}" if c.layers else None)
    row("same answers", lambda c: _same_answers(c))
    row("  first difference at", lambda c: _first_difference(c))
    for percent in ("50", "95", "99"):
        row(f"token p{percent}, ms", lambda c, percent=percent: percentile(c.latency, percent, 2, 1000))  # type: ignore[misc]
    yield from table(rows)


def _same_answers(candidate: "Candidate") -> str | None:
    if not candidate.changes:
        return None
    return f"{sum(change.same for change in candidate.changes)} of {len(candidate.changes)}"


def _first_difference(candidate: "Candidate") -> str | None:
    """After how many tokens answers that differ do so first: the median."""
    differ = [change.agree for change in candidate.changes if not change.same]
    return f"token {median(differ) + 1:.0f} (median)" if differ else None


def _slices(report: "Report") -> Iterator[str]:
    for candidate in report.candidates:
        if not candidate.slices:
            continue
        rows = [["slice", "positions", "perplexity", "ratio", "KL divergence", "same top, %", "by chance"]]
        for one in candidate.slices:
            loss = one.loss
            cells = (estimate(loss.perplexity, 3), estimate(loss.ratio, 4), estimate(loss.kl, 5))
            chance = "" if one.chance is None else _chance(one.chance)
            top = estimate(loss.same_top, 2, 100) or ""
            rows.append([one.name, str(loss.positions), *(cell or "" for cell in cells), top, chance])
        yield from ("", f"slices of {candidate.name}, the worst first", *table(rows))
        if (line := worst_line(candidate)) is not None:
            yield line


def worst_line(candidate: "Candidate") -> str | None:
    """The worst slice by name, and how sure that is."""
    worst = candidate.worst
    if worst is None or worst.loss.kl is None or candidate.loss is None or candidate.loss.kl is None:
        return None
    sure = f"further from the reference than the rest: by chance {_chance(worst.chance or 0.0)}"
    if not worst.significant:
        sure = f"which may be chance ({_chance(worst.chance or 0.0)})"
    if not worst.decidable:
        sure = "too few chunks to tell it from chance: give more text"
    against = f"mean KL {worst.loss.kl.value:.4g}, of all the text {candidate.loss.kl.value:.4g}"
    return f"worst slice: {worst.name}, {against}; {sure}"


def _tasks(report: "Report") -> Iterator[str]:
    """A row per task and model, the reference last."""
    everyone = [*report.candidates, *([] if report.reference is None else [report.reference])]
    if not any(candidate.tasks for candidate in everyone):
        return
    rows = [["task", "model", "items", "accuracy, %", "by length, %", "perplexity", "lost", "gained", "by chance"]]
    for number in range(len(everyone[0].tasks)):
        for candidate in everyone:
            task = candidate.tasks[number]
            numbers = (estimate(task.accuracy, 2, 100), estimate(task.normalized, 2, 100), estimate(task.perplexity, 3))
            flips = candidate.flips[number] if candidate.flips else None
            changed = (
                ["", "", ""] if flips is None else [str(len(flips.lost)), str(len(flips.gained)), _chance(flips.chance)]
            )
            rows.append([task.name, candidate.name, str(len(task.right)), *(cell or "" for cell in numbers), *changed])
    yield from ("", *table(rows, left=2))


def _changes(report: "Report") -> Iterator[str]:
    for candidate in report.candidates:
        changed = [change for change in candidate.changes if not change.same][:SHOWN]
        if changed:
            yield from ("", f"answers of {candidate.name} that changed most")
        for number, change in enumerate(changed):
            if number:
                yield ""
            yield f"  prompt     {_line(change.prompt, end=True)}"
            yield f"  reference  {_line(change.reference)}"
            yield f"  now        {_line(change.answer)}"


def _line(text: str, end: bool = False) -> str:
    """A text's beginning in one line, or its end."""
    shown = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    if len(shown) <= WIDE:
        return shown
    return f"...{shown[3 - WIDE :]}" if end else f"{shown[: WIDE - 3]}..."


def _chance(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"


def estimate(found: "Estimate | None", digits: int, scale: float = 1) -> str | None:
    """A number with its standard error."""
    return None if found is None else f"{_rounded(scale * found.value, digits)} ± {scale * found.error:.{digits}f}"


def percentile(found: "dict[str, float] | None", percent: str, digits: int, scale: float = 1) -> str | None:
    return _rounded(scale * found[percent], digits) if found else None


def _rounded(value: float, digits: int) -> str:
    """Without the sign of what is rounded to zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def table(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Aligned lines, without columns that are empty; the `left` first ones stand to the left."""
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    for cells in zip(*kept, strict=True):
        padded: Any = (
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()
