"""Qwen2 and Qwen2.5: Llama with a bias on q, k and v, and often a tied head (arXiv:2407.10671)."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import llama


class Model(llama.Model):
    """Qwen2."""

    name = "qwen2"

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """q, k and v always have one, the output projection never."""
        return True, False

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """Off unless `use_sliding_window`; then the layers before `max_window_layers` see everything."""
        layers = self.num_hidden_layers
        if not config.get("use_sliding_window", False) or not config.get("sliding_window", 4096):
            return [None] * layers
        full = config.get("max_window_layers", 28)
        if not isinstance(full, int):
            raise CheckpointError(f"{source}: max_window_layers is {full!r}, an integer is needed")
        return read.windows(config, source, layers, [i >= full for i in range(layers)])
