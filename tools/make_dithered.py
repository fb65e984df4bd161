#!/usr/bin/env python3
"""Write a float checkpoint of a quantized GGUF model, with its weights taken off their old grid.

    python tools/make_dithered.py model.gguf --out dithered

Small real models can be had quantized only (tools/real_model.py). Their weights lie on the grid of their blocks, which
an encoder that finds the same steps again would hit without any loss: no test of a quantizer. So to every weight of a
quantized block noise is added that is uniform over the weight's own rounding interval, half a step of its group to
either side, as if the weight had been rounded there. That is how far the original was, not where: the checkpoint is
another model than the one that its authors trained, a little worse than the GGUF file, and it is the reference that
everything made of it has to be compared with. Tensors that the file holds in F32, F16 or BF16 get no noise.

Values are rounded to BF16, as checkpoints are. The noise depends on the seed and the tensor's place alone; --plain
leaves it out.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bf16_checkpoint import Weights, write_bf16  # noqa: E402

from edgeq.blocks.fields import F32, decode_fields  # noqa: E402
from edgeq.blocks.panels import unpack_panels  # noqa: E402
from edgeq.blocks.reference import decode  # noqa: E402
from edgeq.blocks.table import PANEL_ROWS, block_type  # noqa: E402
from edgeq.container.reader import File, TensorInfo, open_file  # noqa: E402
from edgeq.errors import EdgeqError, UnsupportedError  # noqa: E402
from edgeq.gguf.importer import import_gguf  # noqa: E402
from edgeq.models import architecture  # noqa: E402
from edgeq.models.tensors import Tensor  # noqa: E402

RUN_BYTES = 16 << 20  # of f32 weights held at a time


def steps_of(data: np.ndarray, rows: int, columns: int, name: str) -> tuple[F32, F32]:
    """f32 [rows, columns]: the weights of panels of a quantized type, and how far apart two codes are there."""
    kind = block_type(name)
    if kind.values:
        raise UnsupportedError(f"the values of {name} are not evenly spaced: their rounding intervals are not known")
    fields = unpack_panels(data, rows, columns, kind)
    one, zero = (replace(fields, codes=np.full_like(fields.codes, code)) for code in (1, 0))
    return decode_fields(fields, kind), np.abs(decode_fields(one, kind) - decode_fields(zero, kind))


def dithered(data: np.ndarray, rows: int, columns: int, name: str, rng: np.random.Generator | None) -> F32:
    """f32 [rows, columns]: the weights of panels with their noise."""
    if rng is None or not block_type(name).quantized:
        return decode(data, rows, columns, name)
    weights, steps = steps_of(data, rows, columns, name)
    return weights + steps * (rng.random(weights.shape, np.float32) - np.float32(0.5))


def values(file: File, info: TensorInfo, tensor: Tensor, rng: np.random.Generator | None) -> Iterator[F32]:
    """f32 values of a tensor as the checkpoint has them, some rows at a time; no noise without `rng`."""
    data = file.data(info.name)
    if len(info.shape) == 1:
        yield data.view(np.float32) - np.float32(tensor.add)
        return
    rows, columns = info.shape
    panel = block_type(info.type).panel_bytes(columns)
    step = max(RUN_BYTES // (4 * columns * PANEL_ROWS), 1) * PANEL_ROWS
    for first in range(0, rows, step):
        count = min(step, rows - first)
        part = data[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
        yield dithered(part, count, columns, info.type, rng)


def source_of(name: str, tensor: Tensor) -> str:
    """The name of the checkpoint's tensor that this one is. UnsupportedError if it is none by itself."""
    part = tensor.parts[0]
    if len(tensor.parts) > 1 or part.shape != tensor.shape or part.transposed or part.flat:
        raise UnsupportedError(f"{name} is no tensor of its own in a checkpoint: take a model of a plainer kind")
    return part.source


def write_dithered(file: File, out: Path, seed: int | None) -> int:
    """The checkpoint of a file in the folder `out`; how many weights are from a grid. No noise without a seed."""
    model = architecture(file.metadata["config"], file.path)
    weights: list[Weights] = []
    for index, (name, tensor) in enumerate(model.tensors.items()):
        rng = None if seed is None else np.random.default_rng([seed, index])
        pieces = values(file, file.tensors[name], tensor, rng)
        weights.append((source_of(name, tensor), tensor.shape, pieces))
    write_bf16(out, weights, file.metadata["config"], {name: file.asset(name) for name in file.assets})
    return sum(prod(info.shape) for info in file.tensors.values() if block_type(info.type).quantized)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, made if missing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="weights as they are, on their grid")
    options = parser.parse_args()
    try:
        with TemporaryDirectory() as folder:
            imported = Path(folder, "imported.eqf")
            import_gguf(options.source, imported)
            with open_file(imported) as file:
                noisy = write_dithered(file, options.out, None if options.plain else options.seed)
    except EdgeqError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {noisy:,} weights {'on their grid' if options.plain else 'with noise'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
