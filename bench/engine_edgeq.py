"""edgeq as a resident engine for bench/pair.py: `engine_edgeq.py model.eqf context`.

`engine_edgeq.py model.eqf context --once TOKENS THREADS` takes a prompt of so many ids, finds one token and ends.
"""

import sys
from functools import cache

from turns import BATCH, serve, timed

import edgeq
from edgeq.cli.roofline import kv_read
from edgeq.container.reader import open_file
from edgeq.errors import EdgeqError
from edgeq.runtime.limits import dot_peak, read_bandwidth
from edgeq.runtime.session import Session
from edgeq.text.tokenizer import load_tokenizer
from edgeq.toolchain import library


def main() -> None:
    file, context = open_file(sys.argv[1]), int(sys.argv[2])
    if "--once" in sys.argv:
        count, threads = int(sys.argv[4]), int(sys.argv[5])
        with Session(file, context=context, threads=threads) as once:
            print(once.eval(range(1, count + 1))[-1].argmax())
        return

    @cache
    def session(threads: int) -> Session:
        return Session(file, context=context, threads=threads, batch=BATCH)

    def fill(model: Session, tokens: list[int]) -> None:
        """Make the context as deep as `tokens`, with whatever is there already: which ids makes no difference."""
        model.rewind(model.rewindable(min(len(tokens), model.position)))
        if missing := tokens[model.position :]:
            model.eval(missing)

    def seconds(before: list[int], tokens: list[int], batch: bool, threads: int) -> float:
        """Time of `tokens` after `before`: in batches, or one after the other."""
        model = session(threads)
        parts = [tokens] if batch else [[token] for token in tokens]
        fill(model, before)

        def run() -> None:
            model.rewind(len(before))
            for part in parts:
                model.eval(part)

        return timed(run)

    def likeliest(tokens: list[int], threads: int) -> list[int]:
        """For each position the token with the largest logit after it."""
        model = session(threads)
        model.rewind(0)
        return [int(row.argmax()) for row in model.eval(tokens, all_logits=True)]

    def limits(threads: int, bits: list[int]) -> dict[str, object]:
        """Bytes per second read from memory; multiply-adds per second of the byte dots for each code width.

        Short, as they are measured around every turn: each runs once to warm up and then once or twice.
        """
        team = session(threads).team
        return {"read": read_bandwidth(team, 2), "dots": {str(b): dot_peak(team, b, 1) for b in bits}}

    def kv(threads: int) -> list[tuple[int, int]]:
        """What a token reads of the KV cache, as `Work.kv`."""
        return list(kv_read(session(threads)).items())

    def tokens(text: str) -> list[int]:
        return load_tokenizer({name: file.asset(name) for name in file.assets}).encode(text)

    hello = {"version": edgeq.__version__, "isa": library.chosen_isa().name}
    serve(hello, {"seconds": seconds, "likeliest": likeliest, "limits": limits, "kv": kv, "tokens": tokens}, EdgeqError)


if __name__ == "__main__":
    main()
