"""Write a `.eqf` file's weights as a GGUF file that llama.cpp loads: the same blocks in GGUF's order, bit for bit.

    python bench/export_gguf.py model.eqf model.gguf

It is made to compare engines: it holds no tokenizer, so it is run by token ids. GGUF's k-quants need rows of a multiple
of 256 weights; with --fallback a matrix that GGUF cannot hold is encoded again in the type that llama.cpp's own
quantizer takes then, which has more bits (Q4_K becomes Q5_0), and the file no longer holds the same bits; I8_R, which
GGUF has not, becomes Q8_0.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import script

from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.table import block_type
from edgeq.container.reader import TensorInfo
from edgeq.errors import UnsupportedError
from edgeq.gguf.export_plan import Fallback
from edgeq.gguf.exporter import export_gguf


def quantize(weights: np.ndarray, name: str) -> np.ndarray:
    """u8 [rows, row_bytes] of f32 [rows, cols]."""
    return gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])


FALLBACK = Fallback({"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "I8_R": "Q8_0"}, quantize)


@dataclass(frozen=True)
class Target:
    """How a matrix is written: GGUF type and bytes of a row; `again` if it must be encoded anew for that."""

    type: str
    row_bytes: int
    again: bool = False


def target(info: TensorInfo, fallback: bool) -> Target:
    """UnsupportedError if GGUF cannot hold the matrix and `fallback` is off."""
    rows, cols = info.shape
    try:
        return Target(info.type, block_type(info.type).gguf_bytes(rows, cols) // rows)
    except UnsupportedError as error:
        if not fallback or info.type not in FALLBACK.types:
            raise UnsupportedError(f"{info.name}: {error}") from None
    name = FALLBACK.types[info.type]
    return Target(name, BY_NAME[name].row_bytes(cols), again=True)


def export(source: Path, out: Path, fallback: bool = False) -> dict[str, Target]:
    """Write `out`; which types its matrices have. UnsupportedError for an architecture or rows GGUF cannot hold."""
    report = export_gguf(source, out, FALLBACK if fallback else None, tokenizer=False)
    return {
        tensor.name: Target(tensor.type, BY_NAME[tensor.type].row_bytes(tensor.shape[-1]), tensor.again)
        for tensor in report.tensors
        if len(tensor.shape) > 1
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=script.file)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fallback", action="store_true", help="encode again what GGUF cannot hold")
    options = parser.parse_args()
    targets = export(options.source, options.out, options.fallback)
    again = sum(to.again for to in targets.values())
    print(f"{options.out}: {len(targets)} matrices, {again} of them encoded again")


if __name__ == "__main__":
    script.run(main)
