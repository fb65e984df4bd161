"""GPT-NeoX and Pythia: LayerNorm, fused q, k and v head by head, attention and MLP side by side (arXiv:2204.06745)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import llama
from edgeq.models.rope import rope
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Heads, Rope, Value


class Model(llama.Model):
    """GPT-NeoX."""

    name = "gpt_neox"
    prefixes = ("gpt_neox.", "")
    layer_norm = True
    partial = 0.25
    act = "gelu"
    eps_key, eps = "layer_norm_eps", 1e-5

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """Every head has a key and a value of its own."""
        return super().read_heads({**config, "num_key_value_heads": None, "head_dim": None}, source)

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """Under names of its own."""
        own = {"rope_theta": config.get("rotary_emb_base"), "partial_rotary_factor": config.get("rotary_pct")}
        config = {**{key: value for key, value in own.items() if value is not None}, **config}
        return rope(config, self.heads.head_dim, source, self.partial)

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Whether the MLP reads what the attention has added."""
        self.use_parallel_residual = bool(config.get("use_parallel_residual", True))
        self.attention_bias = bool(config.get("attention_bias", True))

    def list_tensors(self, t: Tensors) -> None:
        """q, k and v of a head follow one another, then those of the next head."""
        n, m, head = self.hidden_size, self.intermediate_size, self.heads.head_dim
        t.matrix("token_embd", "gpt_neox.embed_in", self.vocab_size, n)
        for i in range(self.num_hidden_layers):
            layer, bias = t.within(f"blk.{i}.", f"gpt_neox.layers.{i}."), self.attention_bias
            self.norm_tensors(layer, "attn_norm", "input_layernorm")
            for k, part in enumerate(("attn_q", "attn_k", "attn_v")):
                fused = Fused(3 * n, first=k * head, run=head, step=3 * head)
                layer.slice(part, "attention.query_key_value", n, n, fused, bias)
            layer.matrix("attn_output", "attention.dense", n, n, bias=bias)
            self.norm_tensors(layer, "ffn_norm", "post_attention_layernorm")
            layer.matrix("ffn_up", "mlp.dense_h_to_4h", m, n, bias=True)
            layer.matrix("ffn_down", "mlp.dense_4h_to_h", n, m, bias=True)
        self.norm_tensors(t, "output_norm", "gpt_neox.final_layer_norm")
        self.head_tensors(t, "embed_out")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """Both norms read the residual stream as it was before the layer, unless `use_parallel_residual` is off."""
        if not self.use_parallel_residual:
            return super().layer(g, x, i)
        before_attention, before_mlp = self.norm(g, x, f"blk.{i}.attn_norm"), self.norm(g, x, f"blk.{i}.ffn_norm")
        return self.mlp(g, before_mlp, i, self.attention(g, before_attention, i, x))
