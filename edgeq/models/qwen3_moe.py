"""Qwen3's mixtures of experts: Qwen3 with experts in the place of most MLPs (arXiv:2505.09388)."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import experts, qwen3
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(qwen3.Model):
    """Qwen3-MoE."""

    name = "qwen3_moe"

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """All layers are local, or none."""
        local = bool(config.get("use_sliding_window", False)) and config.get("sliding_window", 4096) is not None
        window = read.integer(config, "sliding_window", source, 4096) if local else None
        return [window] * self.num_hidden_layers

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """How many experts there are, and in which layers."""
        read.refuse(config, source, hidden_act="silu")
        self.num_experts = read.integer(config, "num_experts", source, 128, most=4096)
        self.num_experts_per_tok = read.integer(config, "num_experts_per_tok", source, 8)
        self.norm_topk_prob = bool(config.get("norm_topk_prob", False))
        self.moe_intermediate_size = read.integer(config, "moe_intermediate_size", source)
        self.experts_read = experts.part_read(source, self.num_experts, self.num_experts_per_tok)
        step, dense = read.integer(config, "decoder_sparse_step", source, 1), config.get("mlp_only_layers") or []
        if not isinstance(dense, list):
            raise CheckpointError(f"{source}: mlp_only_layers is {read.shown(dense)}, a list of layers is needed")
        self.sparse = [i not in dense and (i + 1) % step == 0 for i in range(self.num_hidden_layers)]

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """Experts, or one MLP."""
        if not self.sparse[i]:
            super().mlp_tensors(t, i)
        else:
            experts.tensors(self, t, self.num_experts, self.moe_intermediate_size)

    def mlp(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Experts, or one MLP."""
        if not self.sparse[i]:
            return super().mlp(g, h, i, add_to)
        assert add_to is not None
        return experts.mixture(self, g, h, i, self.num_experts_per_tok, self.norm_topk_prob, self.num_experts, add_to)
