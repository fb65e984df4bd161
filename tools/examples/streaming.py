"""Complete a text as it comes, and stop when enough is there.

    python tools/examples/streaming.py MODEL "Once upon a time"

It ends after three sentences, and says how fast they came.
"""

import sys
import time

import edgeq

SENTENCES = 3


def main(path: str, prompt: str) -> None:
    with edgeq.load(path, context=512) as model:
        text, began = "", time.perf_counter()
        print(prompt, end="", flush=True)
        for piece in model.generate(prompt, max_tokens=200, temperature=0.8, seed=1):
            print(piece, end="", flush=True)
            text += piece
            if sum(text.count(mark) for mark in ".!?") >= SENTENCES:
                break  # no token is computed before it is asked for
        tokens, seconds = model.timings.generated_tokens, time.perf_counter() - began
        print(f"\n\n{tokens} tokens, {tokens / seconds:.0f} per second")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except edgeq.EdgeqError as error:
        sys.exit(f"streaming: {error}")
