"""Gemma: Llama with scaled embeddings, norms that multiply by 1 + weight, and a GELU gate (arXiv:2403.08295)."""

import math
from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """Gemma."""

    name = "gemma"
    tied = True
    head_dim = 256
    norm_add = 1.0
    act_key, act = "hidden_activation", "gelu_pytorch_tanh"  # its hidden_act says gelu, and the tanh form was trained

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Attention is always causal here."""
        read.refuse(config, source, use_bidirectional_attention=False)

    def embed(self, g: Graph) -> Value:
        """Embeddings times sqrt(hidden_size)."""
        return g.scale(super().embed(g), math.sqrt(self.hidden_size))
