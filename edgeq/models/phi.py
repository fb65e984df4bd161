"""Phi-1, Phi-1.5 and Phi-2: attention and an MLP without a gate side by side on one LayerNorm (arXiv:2306.11644)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """Phi."""

    name = "phi"
    layer_norm = True
    partial = 0.5
    act = "gelu_new"
    eps_key, eps = "layer_norm_eps", 1e-5

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """No released model norms its heads."""
        read.refuse(config, source, qk_layernorm=False)

    def list_tensors(self, t: Tensors) -> None:
        """Every matrix has a bias, the head too."""
        n, m, q, kv = self.hidden_size, self.intermediate_size, self.q_width, self.kv_width
        t.matrix("token_embd", "model.embed_tokens", self.vocab_size, n)
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"model.layers.{i}.")
            self.norm_tensors(layer, "attn_norm", "input_layernorm")
            layer.matrix("attn_q", "self_attn.q_proj", q, n, bias=True)
            layer.matrix("attn_k", "self_attn.k_proj", kv, n, bias=True)
            layer.matrix("attn_v", "self_attn.v_proj", kv, n, bias=True)
            layer.matrix("attn_output", "self_attn.dense", n, q, bias=True)
            layer.matrix("ffn_up", "mlp.fc1", m, n, bias=True)
            layer.matrix("ffn_down", "mlp.fc2", n, m, bias=True)
        self.norm_tensors(t, "output_norm", "model.final_layernorm")
        self.head_tensors(t, bias=True)

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """Attention and MLP read the same norm."""
        h = self.norm(g, x, f"blk.{i}.attn_norm")
        return self.mlp(g, h, i, self.attention(g, h, i, x))
