"""Mistral: Llama whose attention may look back over a window only (arXiv:2310.06825)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama

WINDOW = 4096


class Model(llama.Model):
    """Mistral."""

    name = "mistral"

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """v0.1 has 4096, which is also what leaving it out means; later versions have null."""
        wanted = config.get("sliding_window", WINDOW)
        window = read.integer(config, "sliding_window", source, WINDOW) if wanted else None
        return [window] * self.num_hidden_layers
