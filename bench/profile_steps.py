"""Where a model's time goes: seconds per kernel over one walk of its tape, each step run and timed alone.

    python bench/profile_steps.py model.eqf --tokens 512 --threads 2

Steps timed alone pay a start and a barrier each (a few microseconds), shown as the time of an empty step.
"""

import argparse
import time
from collections import defaultdict

import numpy as np

from edgeq.container.reader import open_file
from edgeq.kernels.layout import STEP_WORDS
from edgeq.runtime.plan import FIRST_OUTPUT, OUTPUTS, POSITION, TOKENS
from edgeq.runtime.session import Session


def profile(session: Session, tokens: int, position: int) -> dict[str, float]:
    """Seconds per kernel name for a batch of `tokens` tokens at `position`."""
    plan = session.plan
    plan.tokens[:tokens] = np.arange(tokens) % 1000
    plan.params[[TOKENS, POSITION, OUTPUTS, FIRST_OUTPUT]] = tokens, position, 1, tokens - 1
    seconds: dict[str, float] = defaultdict(float)
    single = np.ones(STEP_WORDS, dtype=np.int64)  # a tape ends with a barrier
    for step, name in enumerate(plan.kernels):
        single[:2] = plan.tape[STEP_WORDS * step :][:2]
        start = time.perf_counter()
        session.team.run(single.ctypes.data, 1)
        seconds[name] += time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--position", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    context = options.position + options.tokens
    with (
        open_file(options.model) as file,
        Session(file, context=context, threads=options.threads, announce=print) as session,
    ):
        runs = [profile(session, options.tokens, options.position) for _ in range(options.repetitions + 1)][1:]
        median = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
        total = sum(median.values())
        for name, seconds in sorted(median.items(), key=lambda item: -item[1]):
            steps = session.plan.kernels.count(name)
            print(f"{name:20} {steps:4} steps {seconds * 1e3:10.3f} ms {100 * seconds / total:5.1f}%")
        print(f"{'all':20} {session.plan.steps:4} steps {total * 1e3:10.3f} ms")


if __name__ == "__main__":
    main()
