"""LFM2: most layers are short convolutions with two gates, the others attention with normed queries and keys."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """LFM2."""

    name = "lfm2"
    tied = True
    theta = 1000000.0
    head_norms = True
    eps_key, eps = "norm_eps", 1e-5

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        size = "block_ff_dim" if config.get("block_ff_dim") is not None else "intermediate_size"
        width = read.integer(config, size, source, 12288, most=1 << 28)
        if config.get("block_auto_adjust_ff_dim", True):
            width = int(read.number(config, "block_ffn_dim_multiplier", source, 1.0) * int(2 * width / 3))
            multiple = read.integer(config, "block_multiple_of", source, 256)
            width = -(-width // multiple) * multiple
        tied = config.get("tie_embedding", config.get("tie_word_embeddings", True))
        super().__init__({**config, "intermediate_size": width, "tie_word_embeddings": tied}, source)

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Which layers are convolutions, and how many positions these see."""
        layers = self.num_hidden_layers
        kinds = config.get("layer_types")
        if kinds is None:
            attention = config.get("full_attn_idxs")
            attention = range(layers) if attention is None else attention
            kinds = ["full_attention" if i in attention else "conv" for i in range(layers)]
        if not isinstance(kinds, list) or len(kinds) < layers:
            raise CheckpointError(f"{source}: layer_types is {read.shown(kinds)}, a list of {layers} is needed")
        for kind in kinds[:layers]:
            if kind not in ("full_attention", "conv"):
                raise UnsupportedError(f"{source}: layers of type {read.shown(kind)} are not supported")
        if self.hidden_size % 16:
            raise UnsupportedError(f"{source}: hidden_size is {self.hidden_size}, a multiple of 16 is needed")
        self.convolves = [kind == "conv" for kind in kinds[:layers]]
        self.taps = read.integer(config, "conv_L_cache", source, 3, most=64)
        self.conv_bias = bool(config.get("conv_bias", False))

    def list_tensors(self, t: Tensors) -> None:
        """The norm after the last layer is named after the embedding."""
        n, m, q, kv = self.hidden_size, self.intermediate_size, self.q_width, self.kv_width
        t.matrix("token_embd", "model.embed_tokens", self.vocab_size, n)
        for i in range(self.num_hidden_layers):
            layer = t.within(f"blk.{i}.", f"model.layers.{i}.")
            self.norm_tensors(layer, "attn_norm", "operator_norm")
            if self.convolves[i]:
                layer.matrix("shortconv.in_proj", "conv.in_proj", 3 * n, n, self.conv_bias)
                layer.depthwise("shortconv.conv", "conv.conv", n, self.taps, self.conv_bias)
                layer.matrix("shortconv.out_proj", "conv.out_proj", n, n, self.conv_bias)
            else:
                layer.matrix("attn_q", "self_attn.q_proj", q, n)
                layer.matrix("attn_k", "self_attn.k_proj", kv, n)
                layer.matrix("attn_v", "self_attn.v_proj", kv, n)
                layer.matrix("attn_output", "self_attn.out_proj", n, q)
                self.norm_tensors(layer, "attn_q_norm", "self_attn.q_layernorm", self.heads.head_dim)
                self.norm_tensors(layer, "attn_k_norm", "self_attn.k_layernorm", self.heads.head_dim)
            self.norm_tensors(layer, "ffn_norm", "ffn_norm")
            layer.matrix("ffn_gate", "feed_forward.w1", m, n)
            layer.matrix("ffn_up", "feed_forward.w3", m, n)
            layer.matrix("ffn_down", "feed_forward.w2", n, m)
        self.norm_tensors(t, "output_norm", "model.embedding_norm")
        self.head_tensors(t)

    def attention(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Attention, or a convolution in its place."""
        if not self.convolves[i]:
            return super().attention(g, h, i, add_to)
        mixed = self.linear(g, h, f"blk.{i}.shortconv.in_proj")
        conv = f"blk.{i}.shortconv.conv"
        mixed = g.short_conv(mixed, f"{conv}.weight", f"{conv}.bias" if self.conv_bias else None, layer=i)
        return self.linear(g, mixed, f"blk.{i}.shortconv.out_proj", add_to)
