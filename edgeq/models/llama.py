"""Llama (1, 2, 3.x), and the frame for its relatives (arXiv:2302.13971)."""

import re
from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models import config as read
from edgeq.models.graph import Graph, Heads, Value

# Hugging Face's name -> the file's name (GGUF's)
TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


class Model:
    """Llama: pre-norm, rotary grouped-query attention, SwiGLU."""

    name = "llama"

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise UnsupportedError(f"{source}: hidden_act {config['hidden_act']!r} is not supported; supported is silu")
        self.hidden_size = read.integer(config, "hidden_size", source)
        self.intermediate_size = read.integer(config, "intermediate_size", source)
        self.num_hidden_layers = read.integer(config, "num_hidden_layers", source, most=10_000)
        self.vocab_size = read.integer(config, "vocab_size", source)
        self.max_position_embeddings = read.integer(config, "max_position_embeddings", source, 2048)
        self.rms_norm_eps = read.number(config, "rms_norm_eps", source, 1e-6)
        self.tie_word_embeddings = bool(config.get("tie_word_embeddings", False))
        num_attention_heads = read.integer(config, "num_attention_heads", source)
        self.heads = Heads(
            num_attention_heads,
            read.integer(config, "num_key_value_heads", source, num_attention_heads),
            read.integer(config, "head_dim", source, self.hidden_size // num_attention_heads, most=65_536),
            self.sliding_window(config, source),
        )
        self._check_heads(source)
        self.rope = read.rope(config, self.heads.head_dim, source)
        self.qkv_bias, self.output_bias = self.attention_biases(config)
        self.mlp_bias = bool(config.get("mlp_bias", False))

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """Whether q, k, v and whether the output projection have a bias."""
        bias = bool(config.get("attention_bias", False))
        return bias, bias

    def _check_heads(self, source: str) -> None:
        heads, kv_heads, head_dim = (
            self.heads.num_attention_heads,
            self.heads.num_key_value_heads,
            self.heads.head_dim,
        )
        if heads % kv_heads:
            raise CheckpointError(f"{source}: {heads} attention heads cannot share {kv_heads} key/value heads evenly")
        if head_dim % 2:
            raise CheckpointError(f"{source}: head_dim is {head_dim}, rotary embedding needs an even number")

    def layer_heads(self, layer: int) -> Heads:
        """The attention of a layer."""
        return self.heads

    def sliding_window(self, config: Mapping[str, Any], source: str) -> int | None:
        """Positions that attention looks back over, None for all."""
        return None

    def tensor_name(self, hf_name: str) -> str | None:
        """The file's name for a checkpoint's tensor; None for one that is not needed."""
        if hf_name == "lm_head.weight" and self.tie_word_embeddings:
            return None
        match = _LAYER.fullmatch(hf_name)
        if match is None:
            return TENSORS.get(hf_name)
        layer, part, kind = match.groups()
        return f"blk.{layer}.{LAYER_TENSORS[part]}.{kind}" if part in LAYER_TENSORS else None

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Every tensor the graph uses and its shape, [rows, columns] for matrices."""
        n, m = self.hidden_size, self.intermediate_size
        q = self.heads.num_attention_heads * self.heads.head_dim
        kv = self.heads.num_key_value_heads * self.heads.head_dim
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab_size, n)}
        for i in range(self.num_hidden_layers):
            matrices = {
                "attn_q": (q, n, self.qkv_bias),
                "attn_k": (kv, n, self.qkv_bias),
                "attn_v": (kv, n, self.qkv_bias),
                "attn_output": (n, q, self.output_bias),
                "ffn_gate": (m, n, self.mlp_bias),
                "ffn_up": (m, n, self.mlp_bias),
                "ffn_down": (n, m, self.mlp_bias),
            }
            for part, (rows, columns, bias) in matrices.items():
                shapes[f"blk.{i}.{part}.weight"] = (rows, columns)
                if bias:
                    shapes[f"blk.{i}.{part}.bias"] = (rows,)
            shapes[f"blk.{i}.attn_norm.weight"] = (n,)
            shapes[f"blk.{i}.ffn_norm.weight"] = (n,)
        shapes["output_norm.weight"] = (n,)
        if not self.tie_word_embeddings:
            shapes["output.weight"] = (self.vocab_size, n)
        return shapes

    def graph(self, g: Graph) -> Value:
        """The forward pass, token ids to logits."""
        x = g.embedding("token_embd.weight")
        for i in range(self.num_hidden_layers):
            blk = f"blk.{i}"
            h = g.rms_norm(x, f"{blk}.attn_norm.weight", self.rms_norm_eps)
            q = self._linear(g, h, f"{blk}.attn_q", self.qkv_bias)
            k = self._linear(g, h, f"{blk}.attn_k", self.qkv_bias)
            v = self._linear(g, h, f"{blk}.attn_v", self.qkv_bias)
            attended = g.attention(q, k, v, self.layer_heads(i), self.rope, layer=i)
            x = self._linear(g, attended, f"{blk}.attn_output", self.output_bias, add_to=x)
            h = g.rms_norm(x, f"{blk}.ffn_norm.weight", self.rms_norm_eps)
            gate = self._linear(g, h, f"{blk}.ffn_gate", self.mlp_bias)
            up = self._linear(g, h, f"{blk}.ffn_up", self.mlp_bias)
            x = self._linear(g, g.silu_mul(gate, up), f"{blk}.ffn_down", self.mlp_bias, add_to=x)
        x = g.rms_norm(g.outputs(x), "output_norm.weight", self.rms_norm_eps)
        return g.linear(x, "token_embd.weight" if self.tie_word_embeddings else "output.weight")

    def _linear(self, g: Graph, x: Value, name: str, bias: bool, add_to: Value | None = None) -> Value:
        return g.linear(x, f"{name}.weight", f"{name}.bias" if bias else None, add_to)
