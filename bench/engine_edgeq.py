"""edgeq as a resident engine for bench/compare.py: `engine_edgeq.py model.eqf context`."""

import sys
from functools import cache

from turns import serve, timed

import edgeq
from edgeq.container.reader import open_file
from edgeq.kernels import library
from edgeq.runtime.limits import dot_peak, read_bandwidth
from edgeq.runtime.session import Session
from edgeq.text.tokenizer import load_tokenizer


def main() -> None:
    file, context = open_file(sys.argv[1]), int(sys.argv[2])

    @cache
    def session(threads: int) -> Session:
        return Session(file, context=context, threads=threads)

    def seconds(tokens: list[int], batch: bool, threads: int) -> float:
        """Time of `tokens` from an empty context: all at once, or one after the other."""
        model = session(threads)
        parts = [tokens] if batch else [[token] for token in tokens]

        def run() -> None:
            model.rewind(0)
            for part in parts:
                model.eval(part)

        return timed(run)

    def likeliest(tokens: list[int], threads: int) -> list[int]:
        """For each position the token with the largest logit after it."""
        model = session(threads)
        model.rewind(0)
        return [int(row.argmax()) for row in model.eval(tokens, all_logits=True)]

    def limits(threads: int, bits: list[int]) -> dict[str, object]:
        """Bytes per second read from memory; multiply-adds per second of the byte dots for each code width."""
        team = session(threads).team
        return {"read": read_bandwidth(team), "dots": {str(b): dot_peak(team, b) for b in bits}}

    def tokens(text: str) -> list[int]:
        return load_tokenizer({name: file.asset(name) for name in file.assets}).encode(text)

    hello = {"version": edgeq.__version__, "isa": library.chosen_isa().name}
    serve(hello, {"seconds": seconds, "likeliest": likeliest, "limits": limits, "tokens": tokens})


if __name__ == "__main__":
    main()
