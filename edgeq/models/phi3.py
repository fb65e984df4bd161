"""Phi-3, Phi-3.5 and Phi-4 mini: Llama whose checkpoints fuse q, k and v, and gate and up (arXiv:2404.14219)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.rope import rope, rope_parameters, scaling_type
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Rope


class Model(llama.Model):
    """Phi-3."""

    name = "phi3"
    eps = 1e-5

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """There are none."""
        return False, False

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """All layers are local, or none."""
        window = read.integer(config, "sliding_window", source) if config.get("sliding_window") else None
        return [window] * self.num_hidden_layers

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """The first checkpoints called longrope `su`, some `yarn`."""
        scaling = rope_parameters(config, source)
        if scaling_type(scaling) in ("su", "yarn"):
            config = {**config, "rope_parameters": {**scaling, "rope_type": "longrope"}, "rope_scaling": None}
        config = {"original_max_position_embeddings": 4096, **config}
        return rope(config, self.heads.head_dim, source)

    def attention_tensors(self, t: Tensors) -> None:
        """The rows of q, of k and of v follow one another."""
        n, q, kv = self.hidden_size, self.q_width, self.kv_width
        t.slice("attn_q", "self_attn.qkv_proj", q, n, Fused(q + 2 * kv))
        t.slice("attn_k", "self_attn.qkv_proj", kv, n, Fused(q + 2 * kv, first=q))
        t.slice("attn_v", "self_attn.qkv_proj", kv, n, Fused(q + 2 * kv, first=q + kv))
        t.matrix("attn_output", "self_attn.o_proj", n, q)

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """The rows of gate and of up follow one another."""
        n, m = self.hidden_size, self.intermediate_size
        t.slice("ffn_gate", "mlp.gate_up_proj", m, n, Fused(2 * m))
        t.slice("ffn_up", "mlp.gate_up_proj", m, n, Fused(2 * m, first=m))
        t.matrix("ffn_down", "mlp.down_proj", n, m)
