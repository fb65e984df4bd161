"""What drawing a token takes, in milliseconds, by the sampling options.

    python bench/sampling.py [--vocab 151936] [--repetitions 60]

Logits are normal, times 3: about as wide as a language model's. The fastest and the median of so many draws, and of
noting the 20 likeliest tokens with their log-probabilities (`logprobs`).
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import script
from table_file import table

from edgeq.decode.sampler import Sampler
from edgeq.engine.shared_session import logprob

RECENT = [*range(1000, 1200)] * 3
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "default": {},
    "top_k=0": {"top_k": 0},
    "top_k=0 min_p=0": {"top_k": 0, "min_p": 0.0},
    "no filter": {"top_k": 0, "min_p": 0.0, "top_p": 1.0},
    "typical": {"typical_p": 0.9},
    "top-n-sigma": {"top_k": 0, "top_n_sigma": 1.5},
    "mirostat 2": {"mirostat": 2},
    "penalties": {"repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1},
    "DRY": {"dry_multiplier": 0.8, "dry_penalty_last_n": -1},
    "XTC": {"xtc_probability": 0.5},
}


def milliseconds(work: Callable[[], object], repetitions: int) -> list[str]:
    """The fastest and the median."""
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - began))
    return [f"{min(found):.2f}", f"{median(found):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=script.count, default=151_936)
    parser.add_argument("--repetitions", type=script.count, default=60)
    arguments = parser.parse_args()
    logits = 3 * np.random.default_rng(0).standard_normal(arguments.vocab, np.float32)
    recent = [token % arguments.vocab for token in RECENT]
    rows = []
    for name, options in CASES.items():
        sampler = Sampler(seed=1, **options)
        rows.append(
            [name, *milliseconds(lambda sampler=sampler: sampler.sample(logits, recent), arguments.repetitions)]
        )
    rows.append(["logprobs of 20", *milliseconds(lambda: logprob(logits, 5, 20), arguments.repetitions)])
    print(table([("options", False), ("fastest", True), ("median", True)], rows))


if __name__ == "__main__":
    script.run(main)
