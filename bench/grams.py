"""E[x x^T] of what every matrix of a linear layer reads in a float model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32
from edgeq.container.reader import File
from edgeq.models import architecture
from edgeq.quantize.layerwise import Reading, readings
from edgeq.runtime.session import Session

Sequences = Sequence[npt.NDArray[np.int32]]


def read_together(file: File) -> list[Reading]:
    """The matrices of all layers and the head, those that read the same together."""
    model = architecture(file.metadata["config"], file.path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    return readings(model, shapes, range(1, model.num_hidden_layers + 2))


class Grams(Mapping[str, F32]):
    """f32 [columns, columns] by name of a matrix; kept in a folder, which is filled where it does not exist."""

    def __init__(self, file: File, sequences: Sequences, threads: int, folder: Path) -> None:
        self.folder, self.tokens = folder, sum(map(len, sequences))
        together = read_together(file)
        self.first = {name: reading.names[0] for reading in together for name in reading.names}
        if not (folder / "whole").exists():
            folder.mkdir(exist_ok=True)
            self._collect(file, sequences, threads, [reading.names[0] for reading in together])
            (folder / "whole").touch()

    def __getitem__(self, name: str) -> F32:
        result: F32 = np.load(self.folder / f"{self.first[name]}.npy")
        return result

    def __iter__(self):
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)

    def _collect(self, file: File, sequences: Sequences, threads: int, names: Sequence[str]) -> None:
        sums: dict[str, npt.NDArray[np.float64]] = {}

        def tapped(name: str, rows: F32) -> None:
            product = rows.T @ rows
            sums[name] = sums[name] + product if name in sums else product.astype(np.float64)

        longest = max(map(len, sequences))
        with Session(
            file, context=longest, batch=longest, threads=threads, kv="f16", taps=names, force=True
        ) as session:
            for one in sequences:
                session.rewind(0)
                session.eval(one, all_logits=True, tapped=tapped)
        for name, total in sums.items():
            np.save(self.folder / f"{name}.npy", (total / self.tokens).astype(np.float32))
