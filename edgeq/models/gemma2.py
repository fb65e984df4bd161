"""Gemma 2: norms after attention and MLP as well, capped logits, every other layer local (arXiv:2408.00118)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models import config as read
from edgeq.models import gemma
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Heads, Value


class Model(gemma.Model):
    """Gemma 2."""

    name = "gemma2"
    attention_cap: float | None = 50.0
    logit_cap: float | None = 30.0

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """Scores are scaled by a number of their own, and capped."""
        return replace(
            super().read_heads(config, source),
            scale=read.number(config, "query_pre_attn_scalar", source, 256.0) ** -0.5,
            softcap=read.optional(config, "attn_logit_softcapping", source, self.attention_cap),
        )

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """The first, third, ... layer is local."""
        layers = self.num_hidden_layers
        return read.windows(config, source, layers, [i % 2 == 0 for i in range(layers)])

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The cap of the logits."""
        super().read_more(config, source)
        self.final_logit_softcapping = read.optional(config, "final_logit_softcapping", source, self.logit_cap)

    def layer_tensors(self, t: Tensors, i: int) -> None:
        """Four norms: before and after attention, before and after the MLP."""
        self.attention_tensors(t)
        self.mlp_tensors(t, i)
        self.norm_tensors(t, "attn_norm", "input_layernorm")
        self.norm_tensors(t, "post_attention_norm", "post_attention_layernorm")
        self.norm_tensors(t, "ffn_norm", "pre_feedforward_layernorm")
        self.norm_tensors(t, "post_ffw_norm", "post_feedforward_layernorm")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """What is added to the residual stream is normed before."""
        attended = self.attention(g, self.norm(g, x, f"blk.{i}.attn_norm"), i)
        x = self.norm(g, attended, f"blk.{i}.post_attention_norm", add_to=x)
        done = self.mlp(g, self.norm(g, x, f"blk.{i}.ffn_norm"), i)
        return self.norm(g, done, f"blk.{i}.post_ffw_norm", add_to=x)

    def head(self, g: Graph, x: Value) -> Value:
        """Capped logits."""
        logits = super().head(g, x)
        cap = self.final_logit_softcapping
        return g.softcap(logits, cap) if cap else logits
