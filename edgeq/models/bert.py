"""BERT and its sentence encoders: every token sees all of its text, norms come after each sum (arXiv:1810.04805)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import NO_ROPE, Graph, Heads, Rope, Value


class Model(llama.Model):
    """BERT without a head: the last layer's states are the result."""

    name = "bert"
    prefixes = ("bert.", "")
    layer_norm = True
    act = "gelu"
    eps_key, eps = "layer_norm_eps", 1e-12

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """Heads share the hidden size; none share keys."""
        read.refuse(config, source, is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
        heads = read.integer(config, "num_attention_heads", source)
        if self.hidden_size % heads:
            raise CheckpointError(f"{source}: {heads} attention heads cannot share {self.hidden_size} values evenly")
        return replace(Heads(heads, heads, self.hidden_size // heads), causal=False)

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """Positions are embedded like tokens."""
        return NO_ROPE

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Sentences are of the first type where there are several."""
        self.types = read.integer(config, "type_vocab_size", source, 2)

    def list_tensors(self, t: Tensors) -> None:
        """Every matrix has a bias; what a pooler or a head has is not needed."""
        n, m, theirs = self.hidden_size, self.intermediate_size, self.prefixes[0]
        embeddings = t.within("", f"{theirs}embeddings.")
        embeddings.matrix("token_embd", "word_embeddings", self.vocab_size, n)
        embeddings.matrix("position_embd", "position_embeddings", self.max_position_embeddings, n)
        embeddings.matrix("token_types", "token_type_embeddings", self.types, n)
        self.norm_tensors(embeddings, "token_embd_norm", "LayerNorm")
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"{theirs}encoder.layer.{i}.")
            layer.matrix("attn_q", "attention.self.query", n, n, bias=True)
            layer.matrix("attn_k", "attention.self.key", n, n, bias=True)
            layer.matrix("attn_v", "attention.self.value", n, n, bias=True)
            layer.matrix("attn_output", "attention.output.dense", n, n, bias=True)
            self.norm_tensors(layer, "attn_output_norm", "attention.output.LayerNorm")
            layer.matrix("ffn_up", "intermediate.dense", m, n, bias=True)
            layer.matrix("ffn_down", "output.dense", n, m, bias=True)
            self.norm_tensors(layer, "layer_output_norm", "output.LayerNorm")

    def graph(self, g: Graph) -> Value:
        """Token ids to the states of the last layer."""
        x = self.embed(g)
        for i in range(self.num_hidden_layers):
            x = self.layer(g, x, i)
        return x

    def embed(self, g: Graph) -> Value:
        """A token's embedding, its position's and its type's, normed."""
        x = g.add_positions(super().embed(g), "position_embd.weight")
        return self.norm(g, g.add_row(x, "token_types.weight"), "token_embd_norm")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """The sums after attention and MLP are normed, rather than what these read."""
        x = self.norm(g, self.attention(g, x, i, x), f"blk.{i}.attn_output_norm")
        return self.norm(g, self.mlp(g, x, i, x), f"blk.{i}.layer_output_norm")
