"""The vocabulary in which a model file describes its forward pass; `runtime/plan.py` turns it into a tape."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Value:
    """A row of `width` f32 per token, symbolically; of tokens whose logits are asked for only, if `outputs`."""

    index: int
    width: int
    outputs: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of the first `2 * len(inverse_frequencies)` values of each head.

    `interleaved` rotates neighbours (2i, 2i + 1), otherwise the halves (i, i + n / 2). `attention_factor` scales
    cos and sin.
    """

    inverse_frequencies: tuple[float, ...]
    interleaved: bool = False
    attention_factor: float = 1.0


@dataclass(frozen=True)
class Heads:
    """Shapes of an attention: query heads, key/value heads, values per head, and a window of positions if local."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None = None


class Graph(Protocol):
    """What a model may say. Weights are named as in the file."""

    def embedding(self, weight: str) -> Value:
        """Rows of `weight` for the input tokens."""

    def rms_norm(self, x: Value, weight: str, eps: float) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467)."""

    def linear(self, x: Value, weight: str, bias: str | None = None, add_to: Value | None = None) -> Value:
        """weight @ x (+ bias); with `add_to`, added to that value in place, which is returned."""

    def attention(self, q: Value, k: Value, v: Value, heads: Heads, rope: Rope, layer: int) -> Value:
        """Rotate q and k, append k and v to the layer's KV cache, softmax(q k^T / sqrt(head_dim)) v, causal."""

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """gate * sigmoid(gate) * up."""

    def outputs(self, x: Value) -> Value:
        """Only the rows whose logits are asked for."""
