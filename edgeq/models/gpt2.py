"""GPT-2: learned positions, LayerNorm, an MLP without a gate; its checkpoints keep matrices as [inputs, outputs]."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import NO_ROPE, Graph, Rope, Value

# What the other architectures call it -> what GPT-2 calls it
NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}


class Model(llama.Model):
    """GPT-2."""

    name = "gpt2"
    prefixes = ("transformer.", "")
    layer_norm = True
    tied = True
    act_key, act = "activation_function", "gelu_new"
    eps_key, eps = "layer_norm_epsilon", 1e-5

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        read.refuse(config, source, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
        read.refuse(config, source, add_cross_attention=False)
        known = {own: config.get(theirs) for own, theirs in NAMES.items()}
        if known["intermediate_size"] is None:
            known["intermediate_size"] = 4 * read.integer(config, "n_embd", source, most=1 << 28)
        super().__init__({**config, **known}, source)

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """Positions are embedded like tokens."""
        return NO_ROPE

    def list_tensors(self, t: Tensors) -> None:
        """Every matrix has a bias."""
        n, m = self.hidden_size, self.intermediate_size
        t.matrix("token_embd", "transformer.wte", self.vocab_size, n)
        t.matrix("position_embd", "transformer.wpe", self.max_position_embeddings, n)
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"transformer.h.{i}.")
            self.norm_tensors(layer, "attn_norm", "ln_1")
            for k, part in enumerate(("attn_q", "attn_k", "attn_v")):
                layer.slice(part, "attn.c_attn", n, n, Fused(3 * n, first=k * n), bias=True, transposed=True)
            layer.matrix("attn_output", "attn.c_proj", n, n, bias=True, transposed=True)
            self.norm_tensors(layer, "ffn_norm", "ln_2")
            layer.matrix("ffn_up", "mlp.c_fc", m, n, bias=True, transposed=True)
            layer.matrix("ffn_down", "mlp.c_proj", n, m, bias=True, transposed=True)
        self.norm_tensors(t, "output_norm", "transformer.ln_f")
        self.head_tensors(t)

    def embed(self, g: Graph) -> Value:
        """A token's embedding and its position's."""
        return g.add_positions(super().embed(g), "position_embd.weight")
