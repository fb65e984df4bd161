"""DistilBERT: BERT without token types, under names of its own (arXiv:1910.01108)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import bert
from edgeq.models import config as read
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

# What the other architectures call it -> what DistilBERT calls it
NAMES = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
}


class Model(bert.Model):
    """DistilBERT."""

    name = "distilbert"
    prefixes = ("distilbert.", "")

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        read.refuse(config, source, sinusoidal_pos_embds=False)
        known = {own: config.get(theirs) for own, theirs in NAMES.items()}
        super().__init__({**config, **known}, source)

    def list_tensors(self, t: Tensors) -> None:
        """Every matrix has a bias."""
        n, m, theirs = self.hidden_size, self.intermediate_size, self.prefixes[0]
        embeddings = t.within("", f"{theirs}embeddings.")
        embeddings.matrix("token_embd", "word_embeddings", self.vocab_size, n)
        embeddings.matrix("position_embd", "position_embeddings", self.max_position_embeddings, n)
        self.norm_tensors(embeddings, "token_embd_norm", "LayerNorm")
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"{theirs}transformer.layer.{i}.")
            layer.matrix("attn_q", "attention.q_lin", n, n, bias=True)
            layer.matrix("attn_k", "attention.k_lin", n, n, bias=True)
            layer.matrix("attn_v", "attention.v_lin", n, n, bias=True)
            layer.matrix("attn_output", "attention.out_lin", n, n, bias=True)
            self.norm_tensors(layer, "attn_output_norm", "sa_layer_norm")
            layer.matrix("ffn_up", "ffn.lin1", m, n, bias=True)
            layer.matrix("ffn_down", "ffn.lin2", n, m, bias=True)
            self.norm_tensors(layer, "layer_output_norm", "output_layer_norm")

    def embed(self, g: Graph) -> Value:
        """A token's embedding and its position's, normed."""
        x = g.add_positions(g.embedding("token_embd.weight"), "position_embd.weight")
        return self.norm(g, x, "token_embd_norm")
