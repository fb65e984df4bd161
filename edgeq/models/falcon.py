"""Falcon: LayerNorm, fused q, k and v, attention and an MLP without a gate side by side (arXiv:2311.16867)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Heads, Value


class Model(llama.Model):
    """Falcon 7B (one key/value head), and 11B and 40B (the newer layout)."""

    name = "falcon"
    prefixes = ("transformer.", "")
    layer_norm = True
    tied = True
    act_key, act = "activation", "gelu"
    eps_key, eps = "layer_norm_epsilon", 1e-5

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        read.refuse(config, source, alibi=False)
        width = read.integer(config, "hidden_size", source, most=1 << 28)
        wide = read.integer(config, "ffn_hidden_size", source, 4 * width)
        super().__init__({**config, "intermediate_size": wide, "head_dim": None}, source)

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """The older layout has one key/value head, or as many as query heads."""
        newer = bool(config.get("new_decoder_architecture", False))
        heads = read.integer(config, "num_attention_heads", source)
        if newer:
            kv_heads = read.integer(config, "num_kv_heads", source, heads)
        else:
            kv_heads = 1 if config.get("multi_query", True) else heads
        return super().read_heads({**config, "num_key_value_heads": kv_heads}, source)

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Biases, and which norms a layer has."""
        self.bias = bool(config.get("bias", False))
        newer = bool(config.get("new_decoder_architecture", False))
        if newer:
            read.refuse(config, source, parallel_attn=True)
        norms = config.get("num_ln_in_parallel_attn")
        self.two_norms = newer and norms in (None, 2)
        self.sequential = not config.get("parallel_attn", True)

    def list_tensors(self, t: Tensors) -> None:
        """Per key/value head: its query heads, its key, its value."""
        n, m, head = self.hidden_size, self.intermediate_size, self.heads.head_dim
        q, kv = self.q_width, self.kv_width
        group = q // self.heads.num_key_value_heads
        t.matrix("token_embd", "transformer.word_embeddings", self.vocab_size, n)
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"transformer.h.{i}.")
            self.norm_tensors(layer, "attn_norm", "ln_attn" if self.two_norms else "input_layernorm")
            if self.two_norms or self.sequential:
                self.norm_tensors(layer, "ffn_norm", "ln_mlp" if self.two_norms else "post_attention_layernorm")
            for part, rows, first, run in (
                ("attn_q", q, 0, group),
                ("attn_k", kv, group, head),
                ("attn_v", kv, group + head, head),
            ):
                fused = Fused(q + 2 * kv, first, run, step=group + 2 * head)
                layer.slice(part, "self_attention.query_key_value", rows, n, fused, self.bias)
            layer.matrix("attn_output", "self_attention.dense", n, q, self.bias)
            layer.matrix("ffn_up", "mlp.dense_h_to_4h", m, n, self.bias)
            layer.matrix("ffn_down", "mlp.dense_4h_to_h", n, m, self.bias)
        self.norm_tensors(t, "output_norm", "transformer.ln_f")
        self.head_tensors(t)

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """Attention and MLP read the residual stream through one norm, or through one each."""
        if self.sequential:
            return super().layer(g, x, i)
        h = before_mlp = self.norm(g, x, f"blk.{i}.attn_norm")
        if self.two_norms:
            before_mlp = self.norm(g, x, f"blk.{i}.ffn_norm")
        return self.mlp(g, before_mlp, i, self.attention(g, h, i, x))
