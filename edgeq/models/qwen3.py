"""Qwen3: Qwen2 without biases, with a norm on every query and key head (arXiv:2505.09388)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import llama, qwen2


class Model(qwen2.Model):
    """Qwen3."""

    name = "qwen3"
    head_dim: int | None = 128
    head_norms = True

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """As the configuration says."""
        return llama.Model.attention_biases(self, config)
