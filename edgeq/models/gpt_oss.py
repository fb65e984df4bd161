"""gpt-oss: experts with biases and a clamped gate, attention with a sink per head, every other layer local
(arXiv:2508.10925)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models import config as read
from edgeq.models import experts, llama
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Experts, Graph, Heads, Value


class Model(llama.Model):
    """gpt-oss."""

    name = "gpt_oss"
    theta = 150000.0
    eps = 1e-5
    head_dim: int | None = 64

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """On all four projections."""
        bias = bool(config.get("attention_bias", True))
        return bias, bias

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """The first, third, ... layer is local."""
        layers = self.num_hidden_layers
        return read.windows({"sliding_window": 128, **config}, source, layers, [i % 2 == 0 for i in range(layers)])

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """How many experts there are, how many each token needs, and how their gate is clamped."""
        read.refuse(config, source, hidden_act="silu")
        self.num_experts = read.integer(config, "num_local_experts", source, 128, most=4096)
        self.num_experts_per_tok = read.integer(config, "num_experts_per_tok", source, 4)
        self.experts_read = experts.part_read(source, self.num_experts, self.num_experts_per_tok)
        self.alpha = read.number(config, "swiglu_alpha", source, 1.702)
        self.limit = read.number(config, "swiglu_limit", source, 7.0)

    def layer_tensors(self, t: Tensors, i: int) -> None:
        """The norm before the experts is named after the attention."""
        self.attention_tensors(t)
        t.vector("attn_sinks.weight", "self_attn.sinks", self.heads.num_attention_heads)
        self.mlp_tensors(t, i)
        self.norm_tensors(t, "attn_norm", "input_layernorm")
        self.norm_tensors(t, "post_attention_norm", "post_attention_layernorm")

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """Rows of gate and up take turns; matrices are [inputs, outputs], those of MXFP4 [outputs, inputs]."""
        n, m, count = self.hidden_size, self.intermediate_size, self.num_experts
        t.matrix("ffn_gate_inp", "mlp.router", count, n, bias=True)
        for name, source, rows, columns, fused in (
            ("ffn_gate_exps", "gate_up_proj", m, n, Fused(2 * m, run=1, step=2)),
            ("ffn_up_exps", "gate_up_proj", m, n, Fused(2 * m, first=1, run=1, step=2)),
            ("ffn_down_exps", "down_proj", n, m, Fused(n)),
        ):
            t.stacked(name, f"mlp.experts.{source}", count, rows, columns, fused, transposed=True)
            t.rows_of_experts(name, f"mlp.experts.{source}_blocks", count, rows, columns, fused)
            t.expert_bias(name, f"mlp.experts.{source}_bias", count, rows, fused)

    def layer_heads(self, i: int) -> Heads:
        """With the layer's sinks."""
        return replace(super().layer_heads(i), sinks=f"blk.{i}.attn_sinks.weight")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """Weights are normalized over the chosen experts."""
        x = self.attention(g, self.norm(g, x, f"blk.{i}.attn_norm"), i, x)
        h = self.norm(g, x, f"blk.{i}.post_attention_norm")
        router = self.linear(g, h, f"blk.{i}.ffn_gate_inp")
        mix = Experts(
            self.num_experts, self.num_experts_per_tok, True, f"blk.{i}.ffn", alpha=self.alpha, limit=self.limit
        )
        return g.experts(h, router, mix, x)
