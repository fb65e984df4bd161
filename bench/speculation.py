"""Tokens per second with and without guessed tokens, of answers that repeat, sum up, and neither.

    python bench/speculation.py model.eqf [--tokens 120] [--repetitions 3] [--threads 1] [--temperature 0]
    python bench/speculation.py model.eqf --draft small.eqf

In one process, in turns; medians. With one thread, the processor's time is counted, which other programs disturb less;
with more, the time that passes. The texts with and without are compared too: they must be the same.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import script
from table_file import table

import edgeq
from edgeq.engine.answer import Answer
from edgeq.errors import EdgeqError

TEXT = (
    "Every morning the old farmer walks to the market with his basket of apples, and he sells them to the children "
    "who are waiting by the gate. When the sun sets he returns home, counts his coins, and thanks the trees for their "
    "fruit. In winter, when the branches are bare, he tells stories by the fire about the years when the harvest was "
    "so rich that the whole village came to help him. Nobody believes all of them, and everybody comes back to hear "
    "them again, because the room is warm and the old farmer never tells a story twice in the same way."
)
CHANGED = TEXT.replace("farmer", "teacher")
BEGUN = " ".join(CHANGED.split()[:12])  # a small model, too, sees what is asked for
# name -> what is completed as it is, or asked
REPEAT = f"A text:\n\n{TEXT}\n\nThe same text, with one word changed:\n\n{BEGUN}"
TASKS = {
    "repeat": REPEAT,
    "summary": f"Sum up this text in two or three sentences:\n\n{TEXT}",
    "chat": "What should I think of before I get a dog? Answer as to a friend.",
}


def answer(model: edgeq.Model, task: str, tokens: int, temperature: float, speculate: bool) -> Answer:
    options = {"max_tokens": tokens, "temperature": temperature, "seed": 1, "speculate": speculate}
    if task == "repeat":
        return model.generate(TASKS[task], stop="\n", **options)
    if not model.has_chat_template:
        return model.generate(TASKS[task], **options)
    return model.chat([{"role": "user", "content": TASKS[task]}], **options)


def rate(found: Answer, clock: Callable[[], float]) -> float:
    """Tokens per second after the first."""
    pieces = iter(found)
    next(pieces, None)
    first, began = len(found.tokens), clock()
    for _ in pieces:
        pass
    return (len(found.tokens) - first) / max(clock() - began, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file)
    parser.add_argument("--draft", type=script.file, help="a small model of the same vocabulary")
    parser.add_argument("--tokens", type=script.count, default=120)
    parser.add_argument("--repetitions", type=script.count, default=3)
    parser.add_argument("--threads", type=script.count, default=1)
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    rows = []
    path, draft = arguments.model, arguments.draft
    with edgeq.load(path, draft=draft, threads=arguments.threads, context=2048) as model:
        for task in TASKS:
            rates: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(arguments.repetitions + 1):
                texts = {}
                for speculate, measured in rates.items():
                    found = answer(model, task, arguments.tokens, arguments.temperature, speculate)
                    measured.append(rate(found, clock))
                    texts[speculate] = found.tokens
                if texts[True] != texts[False]:
                    raise EdgeqError(f"{task}: speculation changed the text")
            without, speculating = (median(rates[speculate][1:]) for speculate in (False, True))
            guesses = f"{found.timings.accepted_tokens} of {found.timings.drafted_tokens}"
            cells = [f"{without:.1f}", f"{speculating:.1f}", f"{speculating / without:.2f}", guesses]
            rows.append([task, str(len(found.tokens)), *cells])
            print(f"{task}: {found.text[:100]!r}", file=sys.stderr)
    numbers = ("tokens", "tokens/s", "speculating", "ratio", "right guesses")
    print(table([("answer", False), *((name, True) for name in numbers)], rows))


if __name__ == "__main__":
    script.run(main)
