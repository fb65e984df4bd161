"""StableLM 2 and StableLM 3B: Llama with LayerNorm, a part of each head rotated (arXiv:2402.17834)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """StableLM."""

    name = "stablelm"
    layer_norm = True
    partial = 0.25
    eps_key, eps = "layer_norm_eps", 1e-5

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """On q, k and v, or nowhere."""
        return bool(config.get("use_qkv_bias", False)), False

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The parallel form of the layer, which 12B has together with normed heads."""
        read.refuse(config, source, qk_layernorm=False)
        self.use_parallel_residual = bool(config.get("use_parallel_residual", False))

    def layer_tensors(self, t: Tensors, i: int) -> None:
        """One norm is enough for a parallel layer."""
        self.attention_tensors(t)
        self.mlp_tensors(t, i)
        self.norm_tensors(t, "attn_norm", "input_layernorm")
        if not self.use_parallel_residual:
            self.norm_tensors(t, "ffn_norm", "post_attention_layernorm")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """One after the other, or attention and MLP on the same norm."""
        if not self.use_parallel_residual:
            return super().layer(g, x, i)
        h = self.norm(g, x, f"blk.{i}.attn_norm")
        return self.mlp(g, h, i, self.attention(g, h, i, x))
