"""Sequences that decode at once: tokens/s of 1, 2, 4, ... of them together, edgeq beside llama.cpp. CSV on stdout.

    python bench/batch.py model.eqf [--gguf model.gguf --llama llama-batched-bench] > results.csv

Every sequence has a prompt of its own; time counts from when all prompts are computed. `edgeq` is passes alone, `edgeq
answers` those of `Model.batch` with its sampling, queues and threads. All are measured in turns.
"""

import argparse
import csv
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import script

import edgeq
from edgeq.runtime.program import Part
from edgeq.runtime.session import Session

PROMPT = 16  # tokens
COLUMNS = ("model", "threads", "turn", "engine", "sequences", "tokens_per_second")


def decode_rate(session: Session, sequences: int, tokens: int) -> float:
    """Tokens/s of all sequences together."""
    program, draw = session.program, np.random.RandomState(1)
    vocab = program.model.vocab_size
    texts = [program.sequence() for _ in range(sequences)]
    for text in texts:
        program.step([Part(text, draw.randint(0, vocab, PROMPT), [PROMPT - 1])])
    following = draw.randint(0, vocab, (tokens, sequences, 1))
    began = time.perf_counter()
    for row in following:
        program.step([Part(text, item, [0]) for text, item in zip(texts, row, strict=True)])
    return tokens * sequences / (time.perf_counter() - began)


def answer_rate(model: edgeq.Model, sequences: int, tokens: int) -> float:
    """As `decode_rate`, of a batch's answers: with sampling, queues and threads."""
    draw = np.random.RandomState(2)
    prompts = [draw.randint(0, model.vocab_size, PROMPT).tolist() for _ in range(sequences)]
    answers = model.batch(prompts, tokens, seed=1)
    began, counted = 0.0, 0
    for _ in answers.pieces():
        if began == 0.0 and all(answer.tokens for answer in answers):
            began, counted = time.perf_counter(), sum(len(answer.tokens) for answer in answers)
    seconds = time.perf_counter() - began
    return (sum(len(answer.tokens) for answer in answers) - counted) / seconds


def llama_rate(tool: Path, gguf: Path, sequences: int, tokens: int, threads: int) -> float:
    """What llama-batched-bench says."""
    command = [tool, "-m", gguf, "-c", sequences * (PROMPT + tokens + 8), "-npp", PROMPT, "-ntg", tokens]
    command += ["-npl", sequences, "-t", threads, "-tb", threads, "-ngl", 0]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return table_rate(result.stdout)


def table_rate(output: str) -> float:
    """Tokens/s of its table's column S_TG."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if "|" in line]
    names = next(row for row in rows if "S_TG t/s" in row)
    values = next(row for row in rows if len(row) == len(names) and re.fullmatch(r"\d+", row[0]))
    return float(values[names.index("S_TG t/s")])


def measure(options: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Rows of the table, see COLUMNS."""
    most = max(options.sequences)
    context = PROMPT + options.tokens + 16
    with edgeq.load(options.model, threads=options.threads, context=context, parallel=3 * most) as model:
        decode_rate(model.session, 1, 8)
        for turn in range(options.repetitions):
            for sequences in options.sequences:
                rates = {
                    "edgeq": decode_rate(model.session, sequences, options.tokens),
                    "edgeq answers": answer_rate(model, sequences, options.tokens),
                }
                if options.llama:
                    rates["llama.cpp"] = llama_rate(
                        options.llama, options.gguf, sequences, options.tokens, model.session.threads
                    )
                for engine, rate in rates.items():
                    yield options.model.name, model.session.threads, turn, engine, sequences, f"{rate:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file, metavar="model.eqf")
    parser.add_argument("--gguf", type=script.file, help="the same blocks for llama.cpp")
    parser.add_argument("--llama", type=script.file, help="its llama-batched-bench")
    parser.add_argument(
        "--sequences", nargs="+", type=script.count, default=[1, 2, 4, 8, 16], help="[default: 1 2 4 8 16]"
    )
    parser.add_argument("--tokens", type=script.count, default=32, help="of each  [default: 32]")
    parser.add_argument("--repetitions", type=script.count, default=3, help="turns of each  [default: 3]")
    parser.add_argument("--threads", type=script.count)
    options = parser.parse_args()
    if bool(options.gguf) != bool(options.llama):
        parser.error("--gguf and --llama go together")
    rows = csv.writer(sys.stdout)
    rows.writerow(COLUMNS)
    for row in measure(options):
        rows.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    script.run(main)
