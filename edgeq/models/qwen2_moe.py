"""Qwen1.5-MoE and Qwen2's mixtures of experts: beside the chosen experts a gated one for every token
(arXiv:2407.10671)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import qwen3_moe
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(qwen3_moe.Model):
    """Qwen2-MoE."""

    name = "qwen2_moe"
    head_dim: int | None = None
    head_norms = False

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """q, k and v have one unless the configuration says otherwise."""
        return bool(config.get("qkv_bias", True)), False

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """Off unless `use_sliding_window`; then every other layer below `max_window_layers` is local."""
        layers = self.num_hidden_layers
        if not config.get("use_sliding_window", False):
            return [None] * layers
        most = read.integer(config, "max_window_layers", source, 28)
        return read.windows(config, source, layers, [i % 2 == 0 and i < most for i in range(layers)])

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The size of the shared expert."""
        super().read_more(config, source)
        self.shared_size = read.integer(config, "shared_expert_intermediate_size", source, 5632)

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """The shared expert has a gate of one row."""
        super().mlp_tensors(t, i)
        if self.sparse[i]:
            n, m = self.hidden_size, self.shared_size
            t.matrix("ffn_gate_shexp", "mlp.shared_expert.gate_proj", m, n)
            t.matrix("ffn_up_shexp", "mlp.shared_expert.up_proj", m, n)
            t.matrix("ffn_down_shexp", "mlp.shared_expert.down_proj", n, m)
            t.matrix("ffn_gate_inp_shexp", "mlp.shared_expert_gate", 1, n)

    def mlp(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """The chosen experts, and the shared one."""
        x = super().mlp(g, h, i, add_to)
        if not self.sparse[i]:
            return x
        gate = self.linear(g, h, f"blk.{i}.ffn_gate_shexp")
        up = self.linear(g, h, f"blk.{i}.ffn_up_shexp")
        shared = self.linear(g, g.silu_mul(gate, up), f"blk.{i}.ffn_down_shexp")
        return g.sigmoid_gate(shared, self.linear(g, h, f"blk.{i}.ffn_gate_inp_shexp"), add_to=x)
