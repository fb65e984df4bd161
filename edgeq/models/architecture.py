"""What every architecture offers: names, shapes and the graph."""

from collections.abc import Mapping
from typing import Any, Protocol

from edgeq.models.tensors import Tensor
from edgeq.ops import Graph, Heads, Value


class Architecture(Protocol):
    """A model family, configured.

    tensors:  every tensor that the graph uses, by its name in the file
    prefixes: what the checkpoint's names in `tensors` begin with, and what they may begin with instead
    experts_read: the part of the experts' matrices, those of three dimensions, that one token reads
    """

    name: str
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    heads: Heads
    tensors: Mapping[str, Tensor]
    prefixes: tuple[str, ...]
    experts_read: float

    def __init__(self, config: Mapping[str, Any], source: str) -> None: ...

    def graph(self, g: Graph) -> Value:
        """Describe the forward pass; the result is the logits."""
