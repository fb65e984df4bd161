"""Where a model's time goes: seconds per kernel over one walk of its tape, each step run and timed alone.

    python bench/profile_steps.py model.eqf --tokens 512 --threads 2

Steps timed alone pay a start and a barrier each: a step's overhead, shown last, is the time of one that does nothing.
"""

import argparse
import time
from collections import defaultdict
from statistics import median

import numpy as np
import script

from edgeq.container.reader import open_file
from edgeq.graph.row_tables import OUTPUTS, TOKENS
from edgeq.kernels.layout import STEP_WORDS
from edgeq.runtime.program import BATCH, Part
from edgeq.runtime.session import Session

EMPTY_STEPS = 2000


def seconds_of(session: Session, step: int) -> float:
    """The time of one step of the session's tape."""
    single = np.ones(STEP_WORDS, dtype=np.int64)  # a tape ends with a barrier
    single[:2] = session.plan.tape[STEP_WORDS * step :][:2]
    start = time.perf_counter()
    session.team.run(single.ctypes.data, 1)
    return time.perf_counter() - start


def overhead(session: Session) -> float:
    """Seconds of a step that does nothing: a norm of no tokens."""
    plan = session.plan
    norm = next(step for step, name in enumerate(plan.kernels) if "norm" in name)
    plan.tables.counts[[TOKENS, OUTPUTS]] = 0
    return median(seconds_of(session, norm) for _ in range(EMPTY_STEPS))


def profile(session: Session, tokens: int) -> dict[str, float]:
    """Seconds per kernel name for a batch of `tokens` tokens at the session's position."""
    plan = session.plan
    session.program.enter([Part(session.sequence, np.arange(tokens) % session.model.vocab_size, [tokens - 1])])
    seconds: dict[str, float] = defaultdict(float)
    for step, name in enumerate(plan.kernels):
        seconds[name] += seconds_of(session, step)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file)
    parser.add_argument(
        "--tokens", type=script.count, default=512, help=f"of the batch, at most {BATCH}  [default: 512]"
    )
    parser.add_argument("--position", type=int, default=0)
    parser.add_argument("--threads", type=script.count)
    parser.add_argument("--repetitions", type=script.count, default=5)
    options = parser.parse_args()
    if options.tokens > BATCH:
        parser.error(f"--tokens must be at most {BATCH}, a batch")
    if options.position < 0:
        parser.error("--position must be at least 0")
    context = options.position + options.tokens
    with (
        open_file(options.model) as file,
        Session(file, context=context, threads=options.threads, announce=print) as session,
    ):
        while missing := options.position - session.position:  # what was evaluated there makes no difference
            session.sequence.extend(min(missing, session.batch))
            session.sequence.position += min(missing, session.batch)
        runs = [profile(session, options.tokens) for _ in range(options.repetitions + 1)][1:]
        medians = {name: median(run[name] for run in runs) for name in runs[0]}
        total = sum(medians.values())
        for name, seconds in sorted(medians.items(), key=lambda item: -item[1]):
            steps = session.plan.kernels.count(name)
            print(f"{name:20} {steps:4} steps {seconds * 1e3:10.3f} ms {100 * seconds / total:5.1f}%")
        print(f"{'all':20} {session.plan.steps:4} steps {total * 1e3:10.3f} ms")
        print(f"a step's overhead: {overhead(session) * 1e6:.1f} microseconds")


if __name__ == "__main__":
    script.run(main)
