"""`edgeq bench`: speed of prompts and of generation, in the columns of llama.cpp's llama-bench, beside this machine's
limits.

The table goes to stdout, what it is measured against and the latencies to stderr; `--json` has all of it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import psutil

from edgeq.cli.announcer import tell
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.model_argument import model_argument
from edgeq.cli.options import DRAFT, FORCE, KV, THREADS, Announcer, load_model
from edgeq.cli.progress import status
from edgeq.cli.roofline import Case, Course, Limits, Result, Work, kv_read, middle, work
from edgeq.cli.units import binary_size, count
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.engine.model import Model

COLUMNS = (  # name, width, whether numbers stand to the right
    ("model", 30, False),
    ("size", 10, True),
    ("params", 10, True),
    ("backend", 10, False),
    ("threads", 7, True),
    ("test", 13, True),
    ("t/s", 20, True),
)
INTERVAL = 10.0  # seconds of a line of --minutes


def _counts(*names: str, help: str) -> Callable[[Any], Any]:
    """An option of numbers of tokens, separated by commas; it may be given again for more."""

    def read(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> tuple[int, ...]:
        numbers = [one for text in texts for one in text.split(",")]
        for one in numbers:
            if not one.isdecimal():
                what = f"{one!r} is no number of tokens: give one as 512, or several as 128,512"
                raise click.BadParameter(what, context, parameter)
        return tuple(map(int, numbers))

    return click.option(*names, metavar="N,...", multiple=True, callback=read, help=help)


@click.command("bench")
@model_argument
@_counts("-p", "--prompt", "prompts", help="Prompt tokens.  [default: 512]")
@_counts("-n", "--generate", "texts", help="New tokens.  [default: 128]")
@_counts("-d", "--depth", "depths", help="Tokens before a test's.  [default: 0]")
@click.option("-r", "--repetitions", type=click.IntRange(1), help="Of each test.  [default: 5]")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Generate for so long instead, and show the speed over time: a board that gets hot slows down.",
)
@json_option
@KV
@THREADS
@DRAFT
@FORCE
def command(
    model: Path,
    prompts: tuple[int, ...],
    texts: tuple[int, ...],
    depths: tuple[int, ...],
    repetitions: int | None,
    minutes: float | None,
    as_json: bool,
    **loading: Any,
) -> int:
    """Measure the speed of MODEL: taking a prompt (pp) and generating (tg), beside what this machine can do at most.

    -p, -n and -d take several numbers (128,512); 0 leaves the test out. tg128@d4096 generates 128 tokens after 4096.
    """
    kinds = {"tg": texts or (128,)} if minutes else {"pp": prompts or (512,), "tg": texts or (128,)}
    cases = [Case(kind, n, depth) for depth in depths or (0,) for kind, ns in kinds.items() for n in ns if n]
    if not cases:
        raise UsageError("there is nothing to measure: give -p or -n a number above 0")
    if minutes and (len(cases) > 1 or prompts or repetitions):
        raise UsageError("--minutes takes one test: give one -n and one -d, and neither -p nor -r")
    if minutes and not isfinite(minutes):
        raise UsageError(f"--minutes is {minutes}: give a number of minutes, like 10")
    if minutes and loading["draft"]:
        raise UsageError("--minutes measures the model alone: leave out --draft")
    with load_model(model, {**loading, "context": max(case.positions for case in cases)}) as loaded:
        if not loaded.session.model.heads.causal:
            if minutes or any(texts) or any(depths):
                raise UsageError(f"{model}: is an encoder, which takes a text as a whole: give -p alone")
            cases = [case for case in cases if case.kind == "pp"]
        if minutes:
            course, ended = Course(min(INTERVAL, 60 * minutes)), 0
            try:
                endure(loaded, cases[0], 60 * minutes, (lambda line: None) if as_json else _say, course)
            except KeyboardInterrupt:
                ended = 130
            if course.rates:
                _show_course(describe(loaded), cases[0], course, as_json)
            return ended
        _bench(loaded, cases, repetitions or 5, as_json)
    return 0


def _bench(model: "Model", cases: list[Case], repetitions: int, as_json: bool) -> None:
    """Every test, as a table or as JSON."""
    head = describe(model)
    asked = work(model.file.tensors, kv_read(model.session), model.session.model.experts_read)
    if not as_json:
        click.echo(_line([name for name, _, _ in COLUMNS]))
        click.echo("| " + " | ".join("-" * (w - right) + ":" * right for _, w, right in COLUMNS) + " |")
    results = []
    for case in cases:
        with status(f"{case}") as say:
            results.append(measure(model, case, repetitions, asked.bits, say))
        if not as_json:
            tell(_line([*head.values(), str(case), f"{results[-1].rate:.2f} ± {results[-1].spread:.2f}"]))
    memory = model.session.memory() | {"resident": max(result.resident or 0 for result in results)}
    drafts = {case: drafted(model, case, repetitions) for case in cases if model.has_draft and case.kind == "tg"}
    if as_json:
        show_json([_row(head, r, asked, memory) | drafts.get(r.case, {}) for r in results])
    else:
        told = [
            f"{case!s:11} with the draft {found['drafted_tokens_per_second']:.2f} tokens/s, "
            f"{found['undrafted_tokens_per_second']:.2f} without; "
            f"{found['accepted_tokens']} of {found['drafted_tokens']} guesses right"
            for case, found in drafts.items()
        ]
        click.echo("\n".join(["", *notes(results, asked, memory), *told]), err=True)


def machine_limits(threads: int, bits: Iterable[int]) -> Limits:
    """Measured now; about a second."""
    from edgeq.runtime.limits import dot_peak, prepare, read_bandwidth
    from edgeq.runtime.team import Team

    codes = [b for b in bits if b <= 8]
    prepare(codes, Announcer())
    team = Team(threads)
    try:
        return Limits(read_bandwidth(team), {b: dot_peak(team, b) for b in codes})
    finally:
        team.close()


def describe(model: "Model") -> dict[str, str]:
    """What is the same in every row."""
    metadata = model.file.metadata
    return {
        "model": f"{metadata.get('architecture', '?')} {count(model.parameters)} {model.file.recipe}".strip(),
        "size": binary_size(sum(tensor.nbytes for tensor in model.file.tensors.values())),
        "params": count(model.parameters),
        "backend": "CPU",
        "threads": str(model.session.threads),
    }


def _fill(model: "Model", depth: int) -> None:
    """Make the context `depth` tokens deep: what is there already stays, if a session can go back to it."""
    session = model.session
    session.rewind(session.rewindable(min(depth, session.position)))
    if missing := depth - session.position:
        session.eval(_tokens(model, missing))


def _tokens(model: "Model", count: int) -> list[int]:
    """Some ids. Which they are makes no difference to the time, as every weight is read for each."""
    return [i * 7919 % model.vocab_size for i in range(count)]


def measure(
    model: "Model", case: Case, repetitions: int, bits: Iterable[int], say: Callable[[str], None] = lambda line: None
) -> Result:
    """Time one test, and the machine's limits before and after it; `say` hears how far it is.

    A first run, which reads the file's pages in, does not count. Every run begins at the same depth.
    """
    session, tokens, bits = model.session, _tokens(model, case.tokens), list(bits)
    steps = [tokens] if case.kind == "pp" else [[token] for token in tokens]
    _fill(model, case.depth)
    limits = [machine_limits(session.threads, bits)]
    clocks = []
    for repetition in range(repetitions + 1):
        say(f"{case}: run {repetition} of {repetitions}" if repetition else f"{case}: warming up")
        _fill(model, case.depth)
        warm_up = repetition == 0
        clock = [time.perf_counter()]
        for step in steps[:8] if warm_up else steps:
            session.eval(step)
            clock.append(time.perf_counter())
        if not warm_up:
            clocks.append(clock)
    resident = psutil.Process().memory_info().rss
    limits.append(machine_limits(session.threads, bits))
    return Result(case, clocks, middle(limits), resident)


def drafted(model: "Model", case: Case, repetitions: int) -> dict[str, float]:
    """A text that the model itself writes, the likeliest token each, with its draft and without: tokens/s, the median
    of the repetitions, which take turns; guesses of the latest."""
    prompt, rates = _tokens(model, max(case.depth, 1)), dict[bool, list[float]]({True: [], False: []})
    for _ in range(repetitions + 1):
        for speculate, found in rates.items():
            answer = model.generate_tokens(prompt, case.tokens, speculate=speculate, temperature=0.0)
            list(answer)
            found.append(answer.timings.generation_rate)
            if speculate:
                timings = answer.timings
    with_, without = (median(rates[speculate][1:]) for speculate in (True, False))
    return {
        "drafted_tokens_per_second": with_,
        "undrafted_tokens_per_second": without,
        "drafted_tokens": timings.drafted_tokens,
        "accepted_tokens": timings.accepted_tokens,
    }


def endure(model: "Model", case: Case, seconds: float, say: Callable[[str], None], course: Course) -> None:
    """Repeat a tg test for `seconds`; `say` hears a line per interval. Rewinding and filling do not count."""
    session = model.session
    _fill(model, case.depth)
    began = now = time.perf_counter()
    while now - began < seconds:
        _fill(model, case.depth)
        for token in _tokens(model, case.tokens):
            start = time.perf_counter()
            session.eval([token])
            now = time.perf_counter()
            if course.add(now - began, now - start):
                say(_course_line(course))
            if now - began >= seconds:
                break
    if not course.rates:
        course.end(now - began)
        say(_course_line(course))


def _course_line(course: Course) -> str:
    seconds, rate = course.rates[-1]
    return f"{seconds:8.0f} s {rate:10.2f} tokens/s"


def _say(line: str) -> None:
    click.echo(line)


def _show_course(head: Mapping[str, str], case: Case, course: Course, as_json: bool) -> None:
    """What became of the speed."""
    summary = course.summary()
    if as_json:
        times = [{"seconds": seconds, "tokens_per_second": rate} for seconds, rate in course.rates]
        show_json({**head, "test": str(case), **summary, "over_time": times})
    else:
        low, middling, high = summary.values()
        click.echo(f"{case}: min {low:.2f}, median {middling:.2f}, max {high:.2f} tokens/s")


def notes(results: list[Result], asked: Work, memory: Mapping[str, int]) -> list[str]:
    """Lines for people: the machine's limits, each test against those of its own minutes, and memory."""
    limits = middle([result.limits for result in results])
    dots = ", ".join(f"{peak / 1e9:.0f} ({bits}-bit codes)" for bits, peak in limits.dot_peak.items())
    lines = [
        f"limits      {limits.read_bandwidth / 1e9:.1f} GB/s read" + (f", {dots} G multiply-adds/s" if dots else "")
    ]
    for result in results:
        figures = result.figures(asked)
        if result.case.kind == "tg":
            p50, p95, p99 = (1e3 * (figures[f"token_seconds_p{p}"] or 0.0) for p in (50, 95, 99))
            rate, share = (figures["bytes_per_second"] or 0.0) / 1e9, figures["of_read_bandwidth"]
            tail = f"a token takes {p50:.2f} ms (p95 {p95:.2f}, p99 {p99:.2f})"
            text = f"{rate:.1f} GB/s"
        else:
            rate, share = (figures["multiply_adds_per_second"] or 0.0) / 1e9, figures["of_dot_peak"]
            tail = f"first token after {figures['first_token_seconds']:.3f} s"
            text = f"{rate:.1f} G multiply-adds/s"
        percent = "" if share is None else f", {100 * share:.0f} % of the limit"
        if share is not None and share > 1 and result.case.kind == "tg":
            percent += " (weights lie in a cache, or the machine's speed changes)"
        lines.append(f"{result.case!s:11} {text}{percent}; {tail}")
    lines.append(
        f"memory      {binary_size(memory['resident'])} resident at most, of which the file's pages are shared; "
        f"file {binary_size(memory['weights'])}, KV cache {binary_size(memory['kv'])}"
    )
    return lines


def _row(head: Mapping[str, str], result: Result, asked: Work, memory: Mapping[str, int]) -> dict[str, Any]:
    """A test in JSON: seconds, bytes and multiply-adds, never rounded."""
    return {
        **head,
        "threads": int(head["threads"]),
        "test": str(result.case),
        "tokens": result.case.tokens,
        "depth": result.case.depth,
        "seconds": result.seconds,
        "tokens_per_second": result.rate,
        "spread": result.spread,
        **result.figures(asked),
        "limits": {"read_bandwidth": result.limits.read_bandwidth, "dot_peak": dict(result.limits.dot_peak)},
        "resident_bytes": result.resident,
        "kv_bytes": memory["kv"],
        "kv_bytes_per_token": sum(asked.kv.values()),
        "file_bytes": memory["weights"],
    }


def _line(cells: list[str]) -> str:
    """A row of the table, each cell as wide as its column."""
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, (_, width, right) in zip(cells, COLUMNS, strict=True)
    )
    return "| " + " | ".join(padded) + " |"
