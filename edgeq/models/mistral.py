"""Mistral: Llama whose attention may look back over a window only (arXiv:2310.06825)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import llama


class Model(llama.Model):
    """Mistral."""

    name = "mistral"

    def sliding_window(self, config: Mapping[str, Any]) -> int | None:
        """v0.1 has 4096, later versions null."""
        window = config.get("sliding_window")
        return int(window) if window else None
