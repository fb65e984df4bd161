"""Find the lines of a text file that mean most nearly what is asked.

    python tools/examples/search.py MODEL FILE "question"

MODEL is best one that was made for it (e.g. sentence-transformers/all-MiniLM-L6-v2); any model can be tried.
"""

import sys
from pathlib import Path

import numpy as np

import edgeq

SHOWN = 3


def main(path: str, file: str, question: str) -> None:
    lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    with edgeq.load(path, embeddings=True) as model:  # embeddings: the model need not write text, which saves memory
        vectors = model.embed([question, *lines], normalize=True)  # f32 [1 + lines, hidden size], of length 1
    scores = vectors[1:] @ vectors[0]  # so these are cosines
    for place in np.argsort(-scores)[:SHOWN]:
        print(f"{scores[place]:.3f}  {lines[place]}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (edgeq.EdgeqError, OSError) as error:
        sys.exit(f"search: {error}")
