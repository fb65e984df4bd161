"""Qwen2 and Qwen2.5: Llama with a bias on q, k and v, and often a tied head (arXiv:2407.10671)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.graph import Heads


class Model(llama.Model):
    """Qwen2."""

    name = "qwen2"

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        super().__init__(config, source)
        full = config.get("max_window_layers", 28) if self.heads.sliding_window else 0
        if not isinstance(full, int):
            raise CheckpointError(f"{source}: max_window_layers is {full!r}, an integer is needed")
        self.max_window_layers = full

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """q, k and v always have one, the output projection never."""
        return True, False

    def sliding_window(self, config: Mapping[str, Any], source: str) -> int | None:
        """Off unless `use_sliding_window`."""
        wanted = config.get("sliding_window", 4096) if config.get("use_sliding_window", False) else None
        return read.integer(config, "sliding_window", source, 4096) if wanted else None

    def layer_heads(self, layer: int) -> Heads:
        """Layers before `max_window_layers` see everything, the others the window."""
        return replace(self.heads, sliding_window=None) if layer < self.max_window_layers else self.heads
