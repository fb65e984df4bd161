"""Llama (1, 2, 3.x), and the frame for its relatives (arXiv:2302.13971)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models.rope import rope
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Heads, Rope, Value


class Model:
    """Llama: pre-norm, rotary grouped-query attention, SwiGLU."""

    name = "llama"
    prefixes: tuple[str, ...] = ("model.", "")  # without it where only the decoder was saved
    experts_read = 1.0
    layer_norm = False  # LayerNorm with a bias instead of RMSNorm
    norm_add = 0.0  # to be added to the norms' weights
    head_norms = False  # a norm on every query and key head
    # What leaving out tie_word_embeddings, rope_theta, partial_rotary_factor and head_dim means; without the last one
    # heads share hidden_size
    tied = False
    theta = 10000.0
    partial = 1.0
    head_dim: int | None = None
    # What the activation and the norms' epsilon are called, and what leaving them out means
    act_key, act = "hidden_act", "silu"
    eps_key, eps = "rms_norm_eps", 1e-6

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.hidden_size = read.integer(config, "hidden_size", source)
        self.intermediate_size = read.integer(config, "intermediate_size", source)
        self.num_hidden_layers = read.integer(config, "num_hidden_layers", source, most=10_000)
        self.vocab_size = read.integer(config, "vocab_size", source)
        self.max_position_embeddings = read.integer(config, "max_position_embeddings", source, 2048)
        self.norm_eps = read.number(config, self.eps_key, source, self.eps)
        self.tie_word_embeddings = bool(config.get("tie_word_embeddings", self.tied))
        self.activation = read.activation(config, self.act_key, source, self.act)
        self.heads = self.read_heads(config, source)
        self._check_heads(source)
        self.windows = self.read_windows(config, source)
        self.rope = self.read_rope(config, source)
        self.qkv_bias, self.output_bias = self.attention_biases(config)
        self.mlp_bias = bool(config.get("mlp_bias", False))
        self.read_more(config, source)
        self.tensors = Tensors()
        self.list_tensors(self.tensors)

    # ---- the configuration ----

    def read_heads(self, config: Mapping[str, Any], source: str) -> Heads:
        """The attention's shape."""
        heads = read.integer(config, "num_attention_heads", source)
        return Heads(
            heads,
            read.integer(config, "num_key_value_heads", source, heads),
            read.integer(config, "head_dim", source, self.head_dim or self.hidden_size // heads, most=65_536),
        )

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

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """Positions that each layer's attention looks back over, None for all."""
        return [None] * self.num_hidden_layers

    def read_rope(self, config: Mapping[str, Any], source: str) -> Rope:
        """The rotary embedding."""
        return rope(config, self.heads.head_dim, source, self.partial, self.theta)

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """Whether q, k, v and whether the output projection have a bias."""
        bias = bool(config.get("attention_bias", False))
        return bias, bias

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """What only this architecture has."""

    # ---- the weights: the file's name, Hugging Face's name, the shape ----

    def list_tensors(self, t: Tensors) -> None:
        """Every tensor that the graph uses."""
        t.matrix("token_embd", "model.embed_tokens", self.vocab_size, self.hidden_size)
        for i in range(self.num_hidden_layers):
            self.layer_tensors(t.within(f"blk.{i}.", f"model.layers.{i}."), i)
        self.norm_tensors(t, "output_norm", "model.norm")
        self.head_tensors(t)

    def head_tensors(self, t: Tensors, source: str = "lm_head", bias: bool = False) -> None:
        """The head; where it is the embedding, that may be stored as the head."""
        if self.tie_word_embeddings:
            t.also("token_embd", source, self.vocab_size, self.hidden_size)
        else:
            t.matrix("output", source, self.vocab_size, self.hidden_size, bias)

    def layer_tensors(self, t: Tensors, i: int) -> None:
        """The tensors of layer i."""
        self.attention_tensors(t)
        self.mlp_tensors(t, i)
        self.norm_tensors(t, "attn_norm", "input_layernorm")
        self.norm_tensors(t, "ffn_norm", "post_attention_layernorm")

    def attention_tensors(self, t: Tensors) -> None:
        """The projections of an attention."""
        n, q, kv = self.hidden_size, self.q_width, self.kv_width
        t.matrix("attn_q", "self_attn.q_proj", q, n, self.qkv_bias)
        t.matrix("attn_k", "self_attn.k_proj", kv, n, self.qkv_bias)
        t.matrix("attn_v", "self_attn.v_proj", kv, n, self.qkv_bias)
        t.matrix("attn_output", "self_attn.o_proj", n, q, self.output_bias)
        if self.head_norms:
            self.norm_tensors(t, "attn_q_norm", "self_attn.q_norm", self.heads.head_dim)
            self.norm_tensors(t, "attn_k_norm", "self_attn.k_norm", self.heads.head_dim)

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """The matrices of layer i after its attention."""
        n, m = self.hidden_size, self.intermediate_size
        t.matrix("ffn_gate", "mlp.gate_proj", m, n, self.mlp_bias)
        t.matrix("ffn_up", "mlp.up_proj", m, n, self.mlp_bias)
        t.matrix("ffn_down", "mlp.down_proj", n, m, self.mlp_bias)

    def norm_tensors(self, t: Tensors, name: str, source: str, width: int | None = None) -> None:
        """A norm over `width` values, by default over the residual stream."""
        t.norm(name, source, width or self.hidden_size, self.layer_norm, self.norm_add)

    @property
    def q_width(self) -> int:
        """Values of all query heads."""
        return self.heads.num_attention_heads * self.heads.head_dim

    @property
    def kv_width(self) -> int:
        """Values of all key heads, and of all value heads."""
        return self.heads.num_key_value_heads * self.heads.head_dim

    # ---- the graph ----

    def graph(self, g: Graph) -> Value:
        """The forward pass, token ids to logits."""
        x = self.embed(g)
        for i in range(self.num_hidden_layers):
            x = self.layer(g, x, i)
        return self.head(g, self.norm(g, g.outputs(x), "output_norm"))

    def embed(self, g: Graph) -> Value:
        """Token ids to the first layer's input."""
        return g.embedding("token_embd.weight")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """A layer adds its attention, then its MLP, to the residual stream x."""
        x = self.attention(g, self.norm(g, x, f"blk.{i}.attn_norm"), i, x)
        return self.mlp(g, self.norm(g, x, f"blk.{i}.ffn_norm"), i, x)

    def attention(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """The attention of layer i on h, added to `add_to`."""
        q = self.linear(g, h, f"blk.{i}.attn_q")
        k = self.linear(g, h, f"blk.{i}.attn_k")
        v = self.linear(g, h, f"blk.{i}.attn_v")
        q, k = self.before_rope(g, q, k, i)
        return self.linear(g, self.attend(g, q, k, v, i), f"blk.{i}.attn_output", add_to)

    def attend(self, g: Graph, q: Value, k: Value, v: Value, i: int) -> Value:
        """The heads of layer i."""
        return g.attention(q, k, v, self.layer_heads(i), self.layer_rope(i), layer=i)

    def before_rope(self, g: Graph, q: Value, k: Value, i: int) -> tuple[Value, Value]:
        """What happens to queries and keys before they are rotated."""
        if self.head_norms:
            q = g.head_norm(q, f"blk.{i}.attn_q_norm.weight", self.norm_eps)
            k = g.head_norm(k, f"blk.{i}.attn_k_norm.weight", self.norm_eps)
        return q, k

    def layer_heads(self, i: int) -> Heads:
        """The attention of layer i, with its window."""
        return replace(self.heads, sliding_window=self.windows[i])

    def layer_rope(self, i: int) -> Rope:
        """The rotary embedding of layer i."""
        return self.rope

    def mlp(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """The MLP of layer i on h, gated if it has a gate, added to `add_to`."""
        if f"blk.{i}.ffn_gate.weight" in self.tensors:
            gate = self.linear(g, h, f"blk.{i}.ffn_gate")
            h = self.gated(g, gate, self.linear(g, h, f"blk.{i}.ffn_up"), i)
        else:
            h = g.activation(self.linear(g, h, f"blk.{i}.ffn_up"), self.activation)
        return self.linear(g, h, f"blk.{i}.ffn_down", add_to)

    def gated(self, g: Graph, gate: Value, up: Value, i: int) -> Value:
        """activation(gate) * up."""
        return g.silu_mul(gate, up) if self.activation == "silu" else g.activation(gate, self.activation, up)

    def head(self, g: Graph, x: Value) -> Value:
        """The last norm's result to logits."""
        return self.linear(g, x, "token_embd" if self.tie_word_embeddings else "output")

    def norm(self, g: Graph, x: Value, name: str, add_to: Value | None = None) -> Value:
        """The architecture's norm; with `add_to` (RMSNorm only) added to that value."""
        if self.layer_norm:
            return g.layer_norm(x, f"{name}.weight", f"{name}.bias", self.norm_eps)
        return g.rms_norm(x, f"{name}.weight", self.norm_eps, add_to)

    def linear(self, g: Graph, x: Value, name: str, add_to: Value | None = None) -> Value:
        """The matrix `name`, with a bias where there is one."""
        bias = f"{name}.bias"
        return g.linear(x, f"{name}.weight", bias if bias in self.tensors else None, add_to)
