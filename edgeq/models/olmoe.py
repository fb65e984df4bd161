"""OLMoE: Llama with normed queries and keys and a mixture of experts in every layer (arXiv:2409.02060)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import experts, llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """OLMoE."""

    name = "olmoe"
    eps = 1e-5

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """No released model clips q, k and v."""
        read.refuse(config, source, hidden_act="silu", clip_qkv=None)
        self.num_experts = read.integer(config, "num_experts", source, 64, most=4096)
        self.num_experts_per_tok = read.integer(config, "num_experts_per_tok", source, 8)
        self.norm_topk_prob = bool(config.get("norm_topk_prob", False))
        self.experts_read = experts.part_read(source, self.num_experts, self.num_experts_per_tok)

    def attention_tensors(self, t: Tensors) -> None:
        """The norms of q and k go over all heads at once."""
        super().attention_tensors(t)
        self.norm_tensors(t, "attn_q_norm", "self_attn.q_norm", self.q_width)
        self.norm_tensors(t, "attn_k_norm", "self_attn.k_norm", self.kv_width)

    def before_rope(self, g: Graph, q: Value, k: Value, i: int) -> tuple[Value, Value]:
        """All heads are normed together."""
        return self.norm(g, q, f"blk.{i}.attn_q_norm"), self.norm(g, k, f"blk.{i}.attn_k_norm")

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """Every expert is a gated MLP."""
        experts.tensors(self, t, self.num_experts, self.intermediate_size)

    def mlp(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """The experts."""
        assert add_to is not None
        return experts.mixture(self, g, h, i, self.num_experts_per_tok, self.norm_topk_prob, self.num_experts, add_to)
