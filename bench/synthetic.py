"""A llama of any shape in memory, for measurements that need no file: real codes, the same in every panel."""

from typing import Any, ClassVar

import numpy as np

from edgeq.blocks.table import PANEL_ROWS, tensor_bytes
from edgeq.container.reader import TensorInfo
from edgeq.graph.aligned import aligned
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture

SHAPE = {  # of a layer: TinyLlama's
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
}


class SyntheticFile:
    """What a Session needs of a file: every matrix of `block_type`, vectors of ones.

    layers: how many; or as many as make the weights at least `nbytes_at_least` bytes
    shared: matrices of one shape are the same memory, for kernels that read none
    """

    path = "synthetic"
    assets: ClassVar[dict[str, bytes]] = {}

    def __init__(
        self, block_type: str, layers: int | None = None, nbytes_at_least: int = 0, shared: bool = False, **shape: int
    ):
        config: dict[str, Any] = {"model_type": "llama", **SHAPE, **shape}
        if layers is None:
            fixed, layer = (self._sizes(config | {"num_hidden_layers": n}, block_type) for n in (1, 2))
            layers = max(1, -(-(nbytes_at_least - fixed) // (layer - fixed)) + 1)
        self.metadata = {"architecture": "llama", "config": config | {"num_hidden_layers": layers}}
        self.tensors = self._tensors(self.metadata["config"], block_type)
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors.values())
        self._panels: dict[tuple[str, int], np.ndarray] = {}
        self._data: dict[object, np.ndarray] = {}
        self._shared = shared

    def check(self) -> None:
        """Nobody shortens it."""

    @staticmethod
    def _tensors(config: dict[str, Any], block_type: str) -> dict[str, TensorInfo]:
        tensors = {}
        for name, tensor in architecture(config, "synthetic").tensors.items():
            shape = tensor.shape
            kind = block_type if len(shape) == 2 else "F32"
            tensors[name] = TensorInfo(name, shape, kind, 0, tensor_bytes(kind, shape), 0)
        return tensors

    def _sizes(self, config: dict[str, Any], block_type: str) -> int:
        return sum(tensor.nbytes for tensor in self._tensors(config, block_type).values())

    def data(self, name: str) -> np.ndarray:
        """u8 of a tensor, as `File.data` gives it."""
        info = self.tensors[name]
        key = (info.shape, info.type) if self._shared else name
        if key not in self._data:
            memory = aligned(info.nbytes)
            if len(info.shape) == 1:
                memory.view(np.float32)[:] = 1.0
            else:
                memory.reshape(-(-info.shape[0] // PANEL_ROWS), -1)[:] = self._panel(info.type, info.shape[1])
            self._data[key] = memory
        return self._data[key]

    def _panel(self, block_type: str, columns: int) -> np.ndarray:
        if (block_type, columns) not in self._panels:
            weights = np.random.default_rng(1).standard_normal((PANEL_ROWS, columns), dtype=np.float32) * 0.02
            self._panels[block_type, columns] = encode_panels(weights, block_type)
        return self._panels[block_type, columns]
