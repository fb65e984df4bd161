"""Gemma 3's language model: Gemma 2 without caps, with normed queries and keys, and five local layers, which have a
rotary embedding of their own, to each global one (arXiv:2503.19786)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import gemma2
from edgeq.models.rope import rope
from edgeq.ops import Rope


class Model(gemma2.Model):
    """Gemma 3."""

    name = "gemma3_text"
    theta = 1000000.0
    head_norms = True
    attention_cap = None
    logit_cap = None

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """Every sixth layer is global."""
        layers, pattern = self.num_hidden_layers, read.integer(config, "sliding_window_pattern", source, 6)
        return read.windows(config, source, layers, [(i + 1) % pattern != 0 for i in range(layers)])

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """Of the global layers; that of the local ones is not scaled."""
        theta = read.number(config, "rope_local_base_freq", source, 10000.0)
        parameters = config.get("rope_parameters")
        by_kind = isinstance(parameters, Mapping) and "sliding_attention" in parameters
        local = {"rope_parameters": parameters} if by_kind else {}
        self.local_rope = rope(local, self.heads.head_dim, source, theta=theta, kind="sliding_attention")
        return super().read_rope(config, source)

    def layer_rope(self, i: int) -> Rope:
        """By the kind of layer."""
        return self.rope if self.windows[i] is None else self.local_rope
