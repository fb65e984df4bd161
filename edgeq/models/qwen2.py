"""Qwen2 and Qwen2.5: Llama with a bias on q, k and v, and often a tied head (arXiv:2407.10671)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import llama


class Model(llama.Model):
    """Qwen2."""

    name = "qwen2"

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """q, k and v always have one, the output projection never."""
        return True, False

    def sliding_window(self, config: Mapping[str, Any]) -> int | None:
        """Off unless `use_sliding_window`; then only layers from `max_window_layers` on would have it."""
        if not config.get("use_sliding_window", False):
            return None
        if int(config.get("max_window_layers", 0)) >= self.num_hidden_layers:
            return None
        window = config.get("sliding_window")
        return int(window) if window else None
