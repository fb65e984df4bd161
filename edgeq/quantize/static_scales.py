"""Scales of activations that a file carries: every token is quantized with that of the matrix that reads it, not by its
own largest magnitude. Who finds them is not said here."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import UsageError

CHUNK_BYTES = 16 << 20  # copied at a time

NONE: Mapping[str, float] = {}


def with_scales(specs: Iterable[TensorSpec], scales: Mapping[str, float]) -> list[TensorSpec]:
    """The tensors with their scales, by name, rounded to f32."""
    return [
        replace(spec, activation_scale=float(np.float32(scales[spec.name]))) if spec.name in scales else spec
        for spec in specs
    ]


def check_names(scales: Mapping[str, float], names: Collection[str], source: str) -> None:
    """UsageError for a scale of a tensor that a model has not."""
    if unknown := next((name for name in scales if name not in names), None):
        raise UsageError(f"{source}: has no tensor {unknown}, for which there is a scale of activations")


def set_scales(source: str | os.PathLike[str], out: str | os.PathLike[str], scales: Mapping[str, float]) -> None:
    """Write the `.eqf` file `source` as `out`, with these scales of activations, by name of the matrix that reads them,
    and no others; all else stays as it is.

    Raises UnsupportedError for a matrix whose type takes none or a scale beyond 2**-100 to 2**100, UsageError for a
    name that is no tensor or an `out` that is the source, FormatError for a file that is none, OutputError if `out`
    cannot be written.
    """
    with open_file(source) as file:
        if os.path.exists(out) and os.path.samefile(file.path, out):
            raise UsageError(f"{os.fspath(out)}: is the model itself: give another name for the output")
        check_names(scales, file.tensors, file.path)
        specs = with_scales((TensorSpec(i.name, i.shape, i.type) for i in file.tensors.values()), scales)
        assets = {name: file.asset(name) for name in file.assets}
        with Writer(out, specs, file.metadata, assets, file.requires) as writer:
            for name, info in file.tensors.items():
                data = file.data(name)
                for first in range(0, prod(data.shape), CHUNK_BYTES):
                    writer.write(name, data[first : first + CHUNK_BYTES])
                assert info.nbytes == data.nbytes
