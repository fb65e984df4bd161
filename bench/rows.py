"""What one scale per row saves: matrices of I8_R beside those of Q8_0, in turns in one process, without a model file.

    python bench/rows.py [--threads 1] [--rounds 21] [--layers 2]

A synthetic model of each type, of TinyLlama's shape, is walked as the runtime does it: 128 tokens, 8, and 1. Each round
times the matrices of both and, for many tokens, the peak of the body's 8-bit dots with all of it in L1; packing of
activations with one scale per token, which is a step of its own, is counted beside. What is printed are medians of the
rounds, and the median of the ratios within a round: other programs slow down both sides of one. Behind them stand the
best of all rounds, beside the best peak: what is left when nothing else ran.
"""

import argparse
from contextlib import ExitStack
from statistics import median

import script
from kernels import open_session, walk
from synthetic import SyntheticFile

from edgeq.cli.roofline import work
from edgeq.runtime.limits import dot_peak
from edgeq.runtime.session import Session

TYPES = ("Q8_0", "I8_R")
TOKENS = (128, 8, 1)


def seconds(session: Session, tokens: int) -> tuple[float, float]:
    """Of all matrices but the head, and of packing activations for them; the best of two walks."""
    walks = []
    for _ in range(2):
        steps = walk(session, tokens, 0)
        last = max(i for i, (name, _) in enumerate(steps) if name.startswith("matmul"))
        walks.append(
            [
                sum(took for i, (name, took) in enumerate(steps) if name.startswith(family) and i != last)
                for family in ("matmul", "pack")
            ]
        )
    return min(matrices for matrices, _ in walks), min(packing for _, packing in walks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=script.count, default=1, help="[default: 1]")
    parser.add_argument("--rounds", type=script.count, default=21, help="[default: 21]")
    parser.add_argument("--layers", type=script.count, default=2, help="of 44 million weights each  [default: 2]")
    options = parser.parse_args()
    with ExitStack() as stack:
        files = {kind: SyntheticFile(kind, options.layers) for kind in TYPES}
        sessions = {
            kind: stack.enter_context(open_session(file, options.threads, context=256)) for kind, file in files.items()
        }
        products = sum(work(files["Q8_0"].tensors).layers.values())
        for tokens in TOKENS:
            ratios, peaks, packing = [], [], []
            speeds: dict[str, list[float]] = {kind: [] for kind in TYPES}
            for kind in TYPES:
                seconds(sessions[kind], tokens)
            for _ in range(options.rounds):
                took = {kind: seconds(sessions[kind], tokens) for kind in TYPES}
                peaks.append(dot_peak(sessions["Q8_0"].team, 8, 2) / 1e9)
                for kind in TYPES:
                    speeds[kind].append(tokens * products / 1e9 / took[kind][0])
                ratios.append(took["Q8_0"][0] / took["I8_R"][0])
                packing.append(100 * took["I8_R"][1] / took["I8_R"][0])
            print(
                f"{tokens} tokens: I8_R {median(ratios):.3f} times as fast, packing {median(packing):.1f} % of its time"
            )
            for kind in TYPES:
                share = median(100 * speed / peak for speed, peak in zip(speeds[kind], peaks, strict=True))
                best, of_best = max(speeds[kind]), 100 * max(speeds[kind]) / max(peaks)
                usual = f"{median(speeds[kind]):7.1f} G multiply-adds/s, {share:3.0f} % of the peak"
                print(f"  {kind:5} {usual}; at best {best:7.1f}, {of_best:3.0f} %", flush=True)


if __name__ == "__main__":
    script.run(main)
