"""An open file with low-rank matrices beside some of its own, in memory: what adapters add to these matrices' products.

The weights stay those of the file, which any number of such may share.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.blocks.panels import pack_plain
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned_copy
from edgeq.ops.passes import LORA_A, LORA_B

KIND, ELEMENT = "F32", np.dtype("<f4")


class LowRank(NamedTuple):
    """b @ a, f32 [rows, rank] @ [rank, columns]: what is added to a matrix [rows, columns]."""

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]


class AdaptedFile(ChangedFile):
    """`file` with `added`, by the names of its matrices, of which all must be read by linear layers."""

    def __init__(self, file: File, added: Mapping[str, LowRank]) -> None:
        beside = {f"{name}{LORA_A}": one.a for name, one in added.items()}
        beside |= {f"{name}{LORA_B}": one.b for name, one in added.items()}
        own = {name: (KIND, aligned_copy(pack_plain(np.asarray(matrix, ELEMENT)))) for name, matrix in beside.items()}
        super().__init__(file, own, {name: matrix.shape for name, matrix in beside.items()})
        self.adapted = {name: len(one.a) for name, one in added.items()}  # the rank, by name of matrix
