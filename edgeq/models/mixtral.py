"""Mixtral: Mistral with a mixture of experts in every layer (arXiv:2401.04088)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import experts, llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

NAMES = (
    "block_sparse_moe.gate",
    "block_sparse_moe.experts.{}.w1",
    "block_sparse_moe.experts.{}.w3",
    "block_sparse_moe.experts.{}.w2",
)


class Model(llama.Model):
    """Mixtral."""

    name = "mixtral"
    eps = 1e-5

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """All layers are local, or none."""
        window = read.integer(config, "sliding_window", source) if config.get("sliding_window") else None
        return [window] * self.num_hidden_layers

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """How many experts there are, and how many each token needs."""
        read.refuse(config, source, hidden_act="silu")
        self.num_experts = read.integer(config, "num_local_experts", source, 8, most=4096)
        self.num_experts_per_tok = read.integer(config, "num_experts_per_tok", source, 2)
        self.experts_read = experts.part_read(source, self.num_experts, self.num_experts_per_tok)

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """Every expert is a gated MLP."""
        experts.tensors(self, t, self.num_experts, self.intermediate_size, NAMES)

    def mlp(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Weights are normalized over the chosen experts."""
        assert add_to is not None
        return experts.mixture(self, g, h, i, self.num_experts_per_tok, True, self.num_experts, add_to)
