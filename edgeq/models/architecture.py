"""What every architecture offers: names, shapes and the graph."""

from collections.abc import Mapping
from typing import Any, Protocol

from edgeq.models.graph import Graph, Heads, Value


class Architecture(Protocol):
    """A model family, configured."""

    name: str
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    heads: Heads

    def __init__(self, config: Mapping[str, Any], source: str) -> None: ...

    def tensor_name(self, hf_name: str) -> str | None:
        """The file's name for a checkpoint's tensor; None for one that is not needed (rotary tables, a tied head)."""

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Every tensor the graph uses: its name in the file and its shape."""

    def graph(self, g: Graph) -> Value:
        """Describe the forward pass; the result is the logits."""
