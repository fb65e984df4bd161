"""Random schedules of requests, many more than the suite has time for.

    python tools/schedules.py [--count 10000] [--threads 1] [--minutes N]

Models with attention, windows, convolutions and recurrent states take turns. In each schedule several threads ask for
texts, together or not, with guesses, cancelled ones, prompts that begin alike and little memory; every token, and the
bits of the logits it was drawn from, must be those that a request gets alone. Prints how many there were so far; ends
with the first that differs, smallest form first, and exit code 1.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TURN = 50  # schedules of one model at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000, help="how many schedules (10000)")
    parser.add_argument("--threads", type=int, choices=(1, 2, 3), default=1, help="of a model (1)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no turn after that  [default: no limit]")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "runtime"), str(ROOT / "tests" / "models")]
    import random_checkpoints
    import test_scheduler

    from edgeq.container.reader import File, open_file
    from edgeq.quantize.pipeline import convert

    started, schedules, tokens = time.monotonic(), 0, 0
    cases = list(dict.fromkeys(case for case, _ in test_scheduler.CASES))
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, File] = {}
        for case in cases:
            path = Path(folder) / f"{case}.eqf"
            tiny = case == "tiny"
            checkpoint = ROOT / "tools" / "tiny_model" if tiny else random_checkpoints.write(case, Path(folder) / case)
            convert(checkpoint, path, "Q4_K_M" if tiny else "Q8_0", allow_no_tokenizer=not tiny)
            files[case] = open_file(path)
        turn = 0
        while schedules < options.count and time.monotonic() - started < 60 * options.minutes:
            case = cases[turn % len(cases)]
            wanted = min(TURN, options.count - schedules)
            done, compared = test_scheduler.run_schedules(files.__getitem__, case, options.threads, wanted)
            schedules, tokens, turn = schedules + done, tokens + compared, turn + 1
            minutes = (time.monotonic() - started) / 60
            print(f"{schedules} schedules, {tokens} tokens, no difference, {minutes:.1f} min", flush=True)
        for file in files.values():
            file.close()


if __name__ == "__main__":
    main()
