"""Sequences that decode at once: tokens/s of a model for 1, 2, 4, ... of them, edgeq beside llama.cpp.

    python bench/batch.py MODEL.eqf [--gguf MODEL.gguf --llama llama-batched-bench] [--sequences 1,2,4] > results.csv

Every sequence has its own prompt; time counts from when all prompts are computed. A round measures both, one after the
other; a row is one measurement. `edgeq export` makes the GGUF file with the same blocks.
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

import edgeq
from edgeq.runtime.program import Part
from edgeq.runtime.session import Session

PROMPT = 16  # tokens


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


def measure(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Rows of the table."""
    most = max(options.sequences)
    context = PROMPT + options.tokens + 16
    with edgeq.load(options.model, threads=options.threads, context=context, parallel=3 * most) as model:
        decode_rate(model.session, 1, 8)
        for round_ in range(options.rounds):
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
                    yield {
                        "model": options.model.name,
                        "threads": model.session.threads,
                        "round": round_,
                        "engine": engine,
                        "sequences": sequences,
                        "tokens_per_second": f"{rate:.2f}",
                    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--gguf", type=Path, help="the same model for llama.cpp")
    parser.add_argument("--llama", type=Path, help="its llama-batched-bench")
    parser.add_argument(
        "--sequences", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2, 4, 8, 16]
    )
    parser.add_argument("--tokens", type=int, default=32, help="per sequence")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if bool(options.gguf) != bool(options.llama):
        parser.error("--gguf and --llama go together")
    writer = None
    for row in measure(options):
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(row))
            writer.writeheader()
        writer.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
