"""Granite 3's mixtures of experts: Granite with experts in every layer, whose checkpoints keep them in one tensor."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import experts, granite
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Value


class Model(granite.Model):
    """Granite-MoE."""

    name = "granitemoe"

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """How many experts there are, and how many each token needs."""
        super().read_more(config, source)
        read.refuse(config, source, hidden_act="silu")
        self.num_experts = read.integer(config, "num_local_experts", source, 8, most=4096)
        self.num_experts_per_tok = read.integer(config, "num_experts_per_tok", source, 2)
        self.experts_read = experts.part_read(source, self.num_experts, self.num_experts_per_tok)

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """The rows of each expert's gate and up follow one another; files and memory have other names for them."""
        n, m, count = self.hidden_size, self.intermediate_size, self.num_experts
        t.matrix("ffn_gate_inp", "block_sparse_moe.router.layer", count, n)
        t.also("ffn_gate_inp", "block_sparse_moe.router", count, n)
        for gate_up, down in (
            ("input_linear.weight", "output_linear.weight"),
            ("experts.gate_up_proj", "experts.down_proj"),
        ):
            t.stacked("ffn_gate_exps", f"block_sparse_moe.{gate_up}", count, m, n, Fused(2 * m))
            t.stacked("ffn_up_exps", f"block_sparse_moe.{gate_up}", count, m, n, Fused(2 * m, first=m))
            t.stacked("ffn_down_exps", f"block_sparse_moe.{down}", count, n, m, Fused(n))

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """What is added to the residual stream is scaled; the experts' weights are normalized over the chosen."""
        x = g.add(x, self.attention(g, self.norm(g, x, f"blk.{i}.attn_norm"), i), self.residual_multiplier)
        h, top_k = self.norm(g, x, f"blk.{i}.ffn_norm"), self.num_experts_per_tok
        return experts.mixture(self, g, h, i, top_k, True, self.num_experts, x, self.residual_multiplier)
