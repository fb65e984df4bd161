"""Granite 3: Llama with a factor on embeddings, scores, residuals and logits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.ops import Graph, Heads, Value


class Model(llama.Model):
    """Granite 3."""

    name = "granite"

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """Scores have a factor of their own."""
        scale = read.number(config, "attention_multiplier", source, 1.0)
        return replace(super().read_heads(config, source), scale=scale)

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The other factors."""
        self.embedding_multiplier = read.number(config, "embedding_multiplier", source, 1.0)
        self.residual_multiplier = read.number(config, "residual_multiplier", source, 1.0)
        self.logits_scaling = read.number(config, "logits_scaling", source, 1.0)

    def embed(self, g: Graph) -> Value:
        """Scaled embeddings."""
        return g.scale(super().embed(g), self.embedding_multiplier)

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """What is added to the residual stream is scaled."""
        x = g.add(x, self.attention(g, self.norm(g, x, f"blk.{i}.attn_norm"), i), self.residual_multiplier)
        return g.add(x, self.mlp(g, self.norm(g, x, f"blk.{i}.ffn_norm"), i), self.residual_multiplier)

    def head(self, g: Graph, x: Value) -> Value:
        """Logits are divided."""
        return g.scale(super().head(g, x), 1.0 / self.logits_scaling)
