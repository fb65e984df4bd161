"""The report as one HTML page that needs nothing else: tables and plots, for light and dark screens."""

import re
from collections.abc import Iterator, Sequence
from html import escape

from edgeq.evaluate import svg
from edgeq.evaluate.greedy import Change
from edgeq.evaluate.report import EDGES, Candidate, Report
from edgeq.evaluate.statistics import Estimate
from edgeq.quantize.equalize import SMOOTHING
from edgeq.quantize.outliers import Effect

MIB = 1 << 20
SHOWN = 8  # answers
OUTLIERS = 12  # the furthest

STYLE = """
:root { color-scheme: light dark; --page: #f9f9f7; --card: #fcfcfb; --ink: #0b0b0b; --faint: #52514e; --grid: #e6e5df;
  --axis: #b9b8b0; --edge: rgba(11,11,11,.1); --loud: #d03b3b; --gained: #2a78d6; --mark: rgba(208,59,59,.13);
  --c0: #2a78d6; --c1: #eb6834; --c2: #1baf7a; --c3: #eda100; --c4: #e87ba4; --c5: #4a3aa7;
  --c6: #7a8790; }
@media (prefers-color-scheme: dark) { :root { --page: #0d0d0d; --card: #1a1a19; --ink: #fff; --faint: #c3c2b7;
  --grid: #2c2c2a; --axis: #55544f; --edge: rgba(255,255,255,.1); --loud: #e66767; --gained: #3987e5;
  --mark: rgba(230,103,103,.25);
  --c0: #3987e5; --c1: #d95926; --c2: #199e70; --c3: #c98500; --c4: #d55181; --c5: #9085e9;
  --c6: #8f9ca5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 26px; font-weight: 650; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; font-weight: 650; margin: 0 0 2px; }
p { margin: 0 0 12px; color: var(--faint); max-width: 72ch; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 20px 22px;
  margin: 20px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 0 5px 14px; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 12ch; }
td small { display: block; color: var(--faint); line-height: 1.2; }
tr:last-child td { border-bottom: 0; }
th { font-weight: 600; vertical-align: bottom; } td { vertical-align: top; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; font-size: 12.5px; }
svg .ink { fill: var(--ink); } svg .faint { fill: var(--faint); }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--axis); }
svg .fill { fill: var(--c); } svg .ring { stroke: var(--card); stroke-width: 2; }
svg .stroke { stroke: var(--c); stroke-width: 2; } svg .stem { stroke: var(--c); stroke-width: 2; opacity: .3; }
svg .dash { stroke-dasharray: 3 4; stroke-width: 1.5; } svg .area { fill: var(--c); opacity: .1; }
svg .front { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .lost { fill: var(--loud); } svg .gained { fill: var(--gained); }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); } .s4 { --c: var(--c4); }
.s5 { --c: var(--c5); } .s6 { --c: var(--c6); } .loud { --c: var(--loud); }
strong.loud { color: var(--loud); font-weight: 600; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 6px 0 0;
  color: var(--faint); }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; background: var(--c);
  margin-right: 6px; vertical-align: -1px; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 0 24px; border-top: 1px solid var(--grid);
  padding: 12px 0; }
.answers b { grid-column: 1 / -1; font-weight: 600; margin-bottom: 4px; } .answers small { color: var(--faint); }
.answers div { overflow-wrap: anywhere; white-space: pre-wrap; } mark { background: var(--mark); color: inherit; }
footer { color: var(--faint); font-size: 13px; }
@media (max-width: 600px) { .answers { grid-template-columns: 1fr; } }
"""


def page(report: Report) -> str:
    """The page, complete."""
    names = ", ".join(candidate.name for candidate in report.candidates)
    sections = (
        _summary(report),
        _sizes(report),
        _histogram(report),
        _layers(report),
        outliers(report.outliers),
        *map(_slices, report.candidates),
        _tasks(report),
        *map(_answers, report.candidates),
    )
    footer = (
        f"edgeq {report.version}. Numbers after ± are standard errors. Perplexity and divergence are those of "
        "llama.cpp's llama-perplexity."
    )
    return document(f"Quality of {names}", _subject(report), sections, footer)


def document(title: str, subject: str, sections: Sequence[str], footer: str) -> str:
    """A page of sections, HTML each, without those that are empty; the rest is text."""
    body = "".join(f"<section>{part}</section>" for part in sections if part)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p>{escape(subject)}</p>{body}<footer>{escape(footer, quote=False)}</footer>"
        "</main></body></html>\n"
    )


def _subject(report: Report) -> str:
    """What was measured on what."""
    parts = [] if report.reference_name is None else [f"Compared with {report.reference_name}"]
    if report.texts:
        loss = report.candidates[0].loss
        positions = 0 if loss is None else loss.positions
        parts.append(
            f"{', '.join(report.texts)} in {report.chunks} chunks of {report.ctx_size} tokens, of which the second "
            f"half counts: {positions} positions"
        )
    return ". ".join(parts) + "." if parts else ""


def _summary(report: Report) -> str:
    everyone = [*report.candidates, *([] if report.reference is None else [report.reference])]
    header = ["", "MiB", "bits/weight", "perplexity"]
    compared = any(candidate.loss is not None and candidate.loss.kl is not None for candidate in report.candidates)
    header += ["ratio", "mean KL", "99 % KL", "same top", "answers"] if compared else []
    header += ["ms/token"]
    rows = []
    for candidate in everyone:
        loss = candidate.loss
        cells = [broken(candidate.name), f"{candidate.nbytes / MIB:.1f}", f"{candidate.bits_per_weight:.2f}"]
        cells.append(estimate(loss.perplexity if loss else None, 3))
        if compared:
            cells += [estimate(loss.ratio if loss else None, 4), estimate(loss.kl if loss else None, 4)]
            cells.append(f"{loss.kl_percentiles['99']:.3f}" if loss and loss.kl_percentiles else "")
            cells.append(estimate(loss.same_top if loss else None, 1, 100, " %"))
            same = sum(change.same for change in candidate.changes)
            cells.append(f"{same} of {len(candidate.changes)}<small>the same</small>" if candidate.changes else "")
        times = [f"{1000 * value:.1f}" for value in candidate.latency.values()]
        cells.append(f"{times[0]}<small>p99 {times[2]}</small>" if times else "")
        rows.append(cells)
    return "<h2>At a glance</h2>" + table(header, rows)


def _sizes(report: Report) -> str:
    """Loss over bytes, where there are several models."""
    points, name = [], "perplexity"
    for candidate in report.candidates:
        if candidate.loss is not None:
            found = candidate.loss.kl or candidate.loss.perplexity
            name = "mean KL divergence, nats" if candidate.loss.kl else name
            points.append(svg.Point(candidate.name, candidate.nbytes / MIB, found.value, found.error))
    if len(points) < 2:
        return ""
    text = "<p>Lower is better, further left is smaller. Bars are one standard error.</p>"
    return f"<h2>Loss against bytes</h2>{text}{svg.scatter(points, 'MiB', name)}"


def _histogram(report: Report) -> str:
    shown = [c for c in report.candidates if c.kl_histogram and c.loss is not None and c.loss.kl_percentiles]
    if not shown:
        return ""
    medians = [c.loss.kl_percentiles["50"] for c in shown if c.loss is not None and c.loss.kl_percentiles]
    plot = svg.histogram(EDGES, [(c.name, c.kl_histogram) for c in shown], "KL divergence, nats", medians)
    text = "<p>How far predictions are from the reference's, position by position. Dashed: the median.</p>"
    return f"<h2>Where the divergence lies</h2>{text}{svg.legend([c.name for c in shown])}{plot}"


def _layers(report: Report) -> str:
    shown = [candidate for candidate in report.candidates if candidate.layers]
    if not shown:
        return ""
    text = (
        "<p>How far what a layer gives is from the reference's, with what the layers before it have lost: squared "
        "differences over squares.</p>"
    )
    plot = svg.courses([(c.name, c.layers) for c in shown], "layer", "relative error")
    return f"<h2>Through the layers</h2>{text}{svg.legend([c.name for c in shown])}{plot}"


def outliers(effects: Sequence[Effect]) -> str:
    """Which channels reach furthest, and what methods make of them."""
    if not effects:
        return ""
    rows = []
    for one in effects[:OUTLIERS]:
        cells = [broken(one.outlier.name), str(one.outlier.channel), f"{one.outlier.energy:.1%}"]
        ratios = (one.outlier.ratio, one.equalized, one.smoothed)
        rows.append([*cells, *("no place" if ratio is None else f"{ratio:.1f}" for ratio in ratios)])
    header = ["input of", "channel", "of energy", "as it is", "equalized", "SmoothQuant"]
    text = (
        "<p>The channel that reaches furthest in what a matrix reads: its largest magnitude over the median of all "
        "channels', as it is, with columns scaled as feedback does, and as SmoothQuant does with "
        f"a = {SMOOTHING:g}. No place: nothing comes before that a scale could be folded into.</p>"
    )
    return f"<h2>Outliers</h2>{text}{table(header, rows)}"


def _slices(candidate: Candidate) -> str:
    if not candidate.slices:
        return ""
    rows, compared = [], candidate.worst is not None
    for one in candidate.slices:
        found = one.loss.kl or one.loss.perplexity
        note = "" if one.chance is None else f"p {one.chance:.2g}"
        rows.append(svg.Bar(one.name, found.value, found.error, note, one.significant))
    plot = svg.bars(rows, "mean KL divergence, nats" if compared else "perplexity")
    text = "Perplexity of each part of the text."
    worst = candidate.worst
    if worst is not None and worst.significant:
        text = (
            f'<strong class="loud">{escape(worst.name)} lost most</strong>: further from the reference than the rest '
            f"of the text, by chance {worst.chance:.2g}, corrected for {len(candidate.slices)} slices."
        )
    elif worst is not None:
        why = f"which may be chance ({worst.chance:.2g})" if worst.decidable else "of too few chunks to be sure"
        text = f"{escape(worst.name)} lost most, {why}."
    return f"<h2>Slices of {escape(candidate.name)}</h2><p>{text}</p>{plot}"


def _tasks(report: Report) -> str:
    everyone = [*report.candidates, *([] if report.reference is None else [report.reference])]
    if not any(candidate.tasks for candidate in everyone):
        return ""
    rows, bars = [], []
    for number, task in enumerate(everyone[0].tasks):
        for candidate in everyone:
            one = candidate.tasks[number]
            cells = [f"{escape(task.name)}<small>{escape(candidate.name)}</small>", str(len(one.right))]
            cells += [estimate(one.accuracy, 1, 100, " %"), estimate(one.normalized, 1, 100, " %")]
            rows.append([*cells, estimate(one.perplexity, 2)])
            if candidate.flips:
                found = candidate.flips[number]
                label = f"{task.name}, {candidate.name}" if len(report.candidates) > 1 else task.name
                bars.append((label, len(found.lost), len(found.gained), f"p {found.chance:.2g}"))
    header = ["task", "items", "accuracy", "by length", "perplexity"]
    content = "<h2>Tasks</h2>" + table(header, rows)
    if bars:
        content += (
            "<p><br>Items that come out otherwise than with the reference. p is that of McNemar's exact test: how "
            f"likely the difference is by chance.</p>{svg.diverging(bars, 'lost', 'gained')}"
        )
    return content


def _answers(candidate: Candidate) -> str:
    """The answers that changed most, side by side."""
    if not candidate.changes:
        return ""
    changed = [change for change in candidate.changes if not change.same]
    text = f"{len(candidate.changes) - len(changed)} of {len(candidate.changes)} are the same."
    if changed:
        text += " Those that changed most come first; what follows the first difference is marked."
    return f"<h2>Answers of {escape(candidate.name)}</h2><p>{text}</p>{''.join(map(_answer, changed[:SHOWN]))}"


def _answer(change: Change) -> str:
    before, now = change.reference.strip(), change.answer.strip()
    pairs = enumerate(zip(before, now, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), min(len(before), len(now)))
    sides = (
        f"<div><small>{name}</small><br>{escape(text[:same])}<mark>{escape(text[same:])}</mark></div>"
        for name, text in (("reference", before), ("this model", now))
    )
    return f'<div class="answers"><b>{escape(change.prompt)}</b>{"".join(sides)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; columns that are empty are left out."""
    kept = [number for number in range(len(header)) if number == 0 or any(row[number] for row in rows)]

    def lines() -> Iterator[str]:
        yield "<tr>" + "".join(f"<th>{escape(header[number])}</th>" for number in kept) + "</tr>"
        for row in rows:
            yield "<tr>" + "".join(f"<td>{row[number]}</td>" for number in kept) + "</tr>"

    return f'<div class="scroll"><table>{"".join(lines())}</table></div>'


def broken(name: str) -> str:
    """A name that may be broken into lines where it has joints."""
    return re.sub(r"(?<=[-_.])", "<wbr>", escape(name))


def estimate(found: Estimate | None, digits: int, scale: float = 1, unit: str = "") -> str:
    if found is None:
        return ""
    return f"{scale * found.value:.{digits}f}{unit}<small>± {scale * found.error:.{digits}f}</small>"
