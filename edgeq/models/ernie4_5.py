"""ERNIE 4.5: Llama that rotates neighbouring values of a head instead of its halves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models import llama
from edgeq.ops import Rope


class Model(llama.Model):
    """ERNIE 4.5, its dense models."""

    name = "ernie4_5"
    tied = True
    theta = 500000.0
    eps = 1e-5
    head_dim: int | None = 128

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """Everywhere or nowhere, in the MLP too."""
        bias = bool(config.get("use_bias", False))
        return bias, bias

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """Neighbours (2i, 2i + 1) are rotated together."""
        return replace(super().read_rope(config, source), interleaved=True)

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The biases of the MLP."""
        self.mlp_bias = self.qkv_bias
