"""How soon a conversation goes on that was saved, and what memory many users with a common beginning take. Linux only.

    python bench/resume.py model.eqf [--tokens 3000] [--common 2000] [--users 16]

A conversation of so many tokens, as `chat --session` keeps it, is read by processes that have only loaded the model:
from then to the first token of the next answer, with the file in the system's cache and without, beside the time of one
decode step. Bar: 100 ms and a step. Where the machine is busy with other things, what all threads have taken of
processors tells more: it stands beside. Then one user, and many at once, ask about a common beginning, each something
of their own: pages of keys and values at most in use, and memory of the process's own. Bar: what one user takes, and
for each further one the page in which they differ. A chat model is needed. Rows go to bench/results.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import script
from machine import cores, machine, results_file
from memory import status
from table_file import Measured, keep_each, number, table
from turns import EngineError

import edgeq

TEXTS = ("README.md", "CONTRIBUTING.md", "edgeq/docs/design.md")
MESSAGE = 1200  # characters of one of the conversation
ASKED, ANSWER, OWN = "And then?", 17, 10  # the next message; tokens of its answer; tokens of a user's own question
ALLOWED_MS = 100.0


@dataclass
class Row(Measured):
    """One quantity, at its least and its median."""

    KEY = ("model", "threads", "what")

    model: str
    threads: int
    what: str
    unit: str
    least: float
    median: float
    runs: int
    cpu: str = field(default_factory=machine)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))


# ---- what the measured processes do; each says what it found as JSON ----


def load(options: argparse.Namespace, **more: Any) -> edgeq.Model:
    return edgeq.load(options.model, threads=options.threads, **more)


def conversation(model: edgeq.Model, text: str, tokens: int) -> list[dict[str, str]]:
    """Messages of so many tokens, or a few less, the last one the user's."""
    pieces = [text[start : start + MESSAGE] for start in range(0, len(text), MESSAGE)]
    while True:
        pieces = pieces[: len(pieces) - 1 + len(pieces) % 2]
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": piece} for i, piece in enumerate(pieces)]
        if len(model.chat_tokens(messages)) <= tokens or len(pieces) == 1:
            return messages
        pieces.pop()


def save(options: argparse.Namespace) -> dict[str, float]:
    """Have the conversation, and keep it."""
    with load(options, context=options.tokens + 256) as model:
        messages = conversation(model, options.text.read_text(encoding="utf-8"), options.tokens)
        said = "".join(model.chat(messages, 8, temperature=0.0))
        kept = model.save_text(options.saved, {"messages": [*messages, {"role": "assistant", "content": said}]})
    return {"tokens": kept, "MiB": options.saved.stat().st_size / 2**20}


def resume(options: argparse.Namespace) -> dict[str, float]:
    """Go on with it: milliseconds of reading it, until the first token, and of one decode step."""
    with load(options, context=options.tokens + 256) as model:
        list(model.chat([{"role": "user", "content": ASKED}], 4))  # as any process that has answered before
        began, own = time.perf_counter(), time.process_time()
        about = model.load_prefix(options.saved)
        known = time.perf_counter()
        tokens = model.chat_tokens([*about["messages"], {"role": "user", "content": ASKED}])
        answer = model.generate_tokens(tokens, ANSWER, temperature=0.0, speculate=False)
        times, owns = [], []
        for _ in answer:
            times.append(time.perf_counter())
            owns.append(time.process_time())
        if len(times) < 3:
            raise EngineError(f"the model says nothing after {len(tokens)} tokens: take another text")
        found = answer.timings
    steps = [1e3 * (after - before) for before, after in pairwise(times)]
    return {
        "load": 1e3 * (known - began),
        "first": 1e3 * (times[0] - began),
        "step": median(steps),
        "own": 1e3 * (owns[0] - own),
        "computed": found.computed_tokens,
    }


def share(options: argparse.Namespace) -> dict[str, float]:
    """So many users of a common beginning, all at once: pages at most in use, and memory."""
    context, draw = options.common + 64, np.random.RandomState(1)
    with load(options, context=context, parallel=options.users) as model:
        common = draw.randint(0, model.vocab_size, options.common).tolist()
        prompts = [[*common, *draw.randint(0, model.vocab_size, OWN).tolist()] for _ in range(options.users)]
        pool, groups = model.session.program.pool, model.session.program.plan.groups
        most, answers = 0, model.batch(prompts, ANSWER, temperature=0.0)
        for _ in answers.pieces():
            most = max(most, pool.used)
        own = status()["RssAnon"]
        if not all(answer.tokens for answer in answers):
            raise EngineError("a user was told nothing: take another model")
    return {"MiB": most / 2**20, "pages": most / sum(group.nbytes for group in groups), "RSS": own / 2**20}


# ---- the script ----


def child(options: argparse.Namespace, what: str, **more: object) -> dict[str, float]:
    """What a process of its own finds."""
    asked = vars(options) | more
    names = ("tokens", "common", "users", "text", "threads", "saved")
    words = [f"--{name}={asked[name]}" for name in names if asked[name]]
    done = subprocess.run(
        [sys.executable, __file__, str(options.model), *words, f"--child={what}"], capture_output=True, text=True
    )
    if done.returncode:
        raise EngineError(f"{what}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def forget(path: Path) -> None:
    """Have the system drop a file from its cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    name = options.model.name

    def row(what: str, unit: str, *values: float) -> Row:
        return Row(name, options.threads, what, unit, min(values), median(values), len(values))

    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        options.saved = Path(folder) / "conversation.eqp"
        made = child(options, "save")
        yield row("conversation: tokens", "", made["tokens"])
        yield row("conversation: file", "MiB", made["MiB"])
        for where in ("cached", "on disk"):
            found = []
            for _ in range(options.repetitions):
                if where == "on disk":
                    forget(options.saved)
                found.append(child(options, "resume"))
            yield row(f"{where}: reading it", "ms", *(each["load"] for each in found))
            yield row(f"{where}: reading it, to the first token", "ms", *(each["first"] for each in found))
            yield row(f"{where}: the same, time of all processors", "ms", *(each["own"] for each in found))
            yield row(f"{where}: bar", "ms", *(ALLOWED_MS + each["step"] for each in found))
            yield row(f"{where}: a decode step", "ms", *(each["step"] for each in found))
            yield row(f"{where}: tokens computed before the first", "", *(each["computed"] for each in found))
    for users in sorted({1, options.users}):
        shared = child(options, "share", users=users)
        yield row(f"{users} users of {options.common} tokens: pages", "", shared["pages"])
        yield row(f"{users} users of {options.common} tokens: memory of pages", "MiB", shared["MiB"])
        yield row(f"{users} users of {options.common} tokens: own memory", "MiB", shared["RSS"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file, metavar="model.eqf")
    parser.add_argument("--tokens", type=script.count, default=3000, help="of the conversation, at most (3000)")
    parser.add_argument("--text", type=script.file, help="what it is about  [default: this project's documents]")
    parser.add_argument("--common", type=script.count, default=2000, help="tokens that users have in common (2000)")
    parser.add_argument("--users", type=script.count, default=16, help="(16)")
    parser.add_argument("--repetitions", type=script.count, default=5, help="processes that go on, of each kind (5)")
    parser.add_argument("--threads", type=script.count, default=cores())
    parser.add_argument("--work", type=script.folder, help="folder on the disk that is to be read  [default: /tmp]")
    parser.add_argument("--results", type=Path, help="CSV file for the rows")
    parser.add_argument("--saved", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=("save", "resume", "share"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("memory is read from /proc: this needs Linux")
    if options.child:
        print(json.dumps({"save": save, "resume": resume, "share": share}[options.child](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.text is None:
            root = Path(__file__).resolve().parent.parent
            options.text = Path(folder) / "text"
            options.text.write_text("\n".join((root / name).read_text(encoding="utf-8") for name in TEXTS), "utf-8")
        found = keep_each(options.results or results_file("resume"), Row, rows(options))
    cells = [
        [each.what, number(str(each.least)), number(str(each.median)), each.unit, str(each.runs)] for each in found
    ]
    print(table([("what", False), ("least", True), ("median", True), ("unit", False), ("runs", True)], cells))


if __name__ == "__main__":
    script.run(main)
