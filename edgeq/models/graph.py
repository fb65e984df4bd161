"""The vocabulary in which a model file describes its forward pass; `runtime/compiler.py` turns it into a tape."""

from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Value:
    """A row of `width` f32 per token, symbolically; of tokens whose logits are asked for only, if `outputs`."""

    index: int
    width: int
    outputs: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of the first `2 * len(inverse_frequencies)` values of each head; none if that is 0.

    `interleaved` rotates neighbours (2i, 2i + 1), otherwise the halves (i, i + n / 2). `attention_factor` scales
    cos and sin. In a session for more than `short_context` positions the frequencies are `long_frequencies` if there
    are such (longrope), or those of a theta that grows with the session (dynamic): see `for_context`.
    """

    inverse_frequencies: tuple[float, ...]
    interleaved: bool = False
    attention_factor: float = 1.0
    short_context: int = 0
    long_frequencies: tuple[float, ...] = ()
    dynamic_factor: float = 0.0

    def for_context(self, positions: int) -> "Rope":
        """The embedding in a session for so many positions."""
        frequencies, half = self.inverse_frequencies, len(self.inverse_frequencies)
        if positions > self.short_context:
            if self.long_frequencies:
                frequencies = self.long_frequencies
            elif self.dynamic_factor and half > 1:
                # theta' = theta * growth^(2 half / (2 half - 2)), so frequency i shrinks by growth^(-i / (half - 1))
                growth = self.dynamic_factor * positions / self.short_context - (self.dynamic_factor - 1.0)
                frequencies = tuple(f * growth ** (-i / (half - 1)) for i, f in enumerate(frequencies))
        return replace(self, inverse_frequencies=frequencies, short_context=0, long_frequencies=(), dynamic_factor=0.0)


NO_ROPE = Rope(())


@dataclass(frozen=True)
class Heads:
    """Shapes of an attention: query heads, key/value heads, values per head, and a window of positions if local.

    scale: what q k^T is multiplied by, 1 / sqrt(head_dim) if None; softcap: c of c tanh(score / c), none if 0; sinks:
    the weight that has one more score per query head, which takes part in the softmax and has no value
    causal: a token sees those before it only; otherwise all of its text, which must be evaluated at once
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None = None
    scale: float | None = None
    softcap: float = 0.0
    sinks: str = ""
    causal: bool = True


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `top_k` of `count` per token, weighted by the softmax over all, or, if `normalized`, over
    the chosen; the expert matrices are `<prefix>_gate_exps`, `<prefix>_up_exps` and `<prefix>_down_exps`, with biases
    where there are such. What the experts give is multiplied by `factor`. With a `limit` the gate is at most that, what
    it is multiplied with lies within it: (up + 1) gate sigmoid(alpha gate)."""

    count: int
    top_k: int
    normalized: bool
    prefix: str
    factor: float = 1.0
    alpha: float = 1.0
    limit: float = 0.0


class Graph(Protocol):
    """What a model may say. Weights are named as in the file."""

    def embedding(self, weight: str) -> Value:
        """Rows of `weight` for the input tokens."""

    def add_positions(self, x: Value, weight: str) -> Value:
        """x + the rows of `weight` for the tokens' positions, in place."""

    def add_row(self, x: Value, weight: str) -> Value:
        """x + the first row of `weight`, in place."""

    def rms_norm(self, x: Value, weight: str, eps: float, add_to: Value | None = None) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467); with `add_to`, added to that value in place."""

    def layer_norm(self, x: Value, weight: str, bias: str | None, eps: float) -> Value:
        """(x - mean(x)) / sqrt(variance(x) + eps) * weight (+ bias) (arXiv:1607.06450)."""

    def head_norm(self, x: Value, weight: str, eps: float) -> Value:
        """rms_norm of every head of x by itself, in place; `weight` has one value per value of a head."""

    def linear(self, x: Value, weight: str, bias: str | None = None, add_to: Value | None = None) -> Value:
        """weight @ x (+ bias); with `add_to`, added to that value in place, which is returned."""

    def attention(self, q: Value, k: Value, v: Value, heads: Heads, rope: Rope, layer: int) -> Value:
        """Rotate q and k, append k and v to the layer's KV cache, softmax(scale q k^T) v."""

    def short_conv(self, x: Value, weight: str, bias: str | None, layer: int) -> Value:
        """x holds B, C and x': C * (B * x' through a causal convolution by `weight` [channels, taps] (+ bias))."""

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """gate * sigmoid(gate) * up."""

    def activation(self, x: Value, kind: str, up: Value | None = None) -> Value:
        """`kind` of x (see kernels/activation.py), times `up` if given."""

    def experts(self, x: Value, router: Value, experts: Experts, add_to: Value) -> Value:
        """The sum of the chosen experts' SwiGLU of x, each weighted as `router` [count] says, added to `add_to`."""

    def sigmoid_gate(self, x: Value, gate: Value, add_to: Value) -> Value:
        """sigmoid(gate) * x, `gate` of width 1, added to `add_to` in place."""

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor, in place."""

    def add(self, x: Value, y: Value, factor: float = 1.0) -> Value:
        """x + factor * y, in place of x."""

    def softcap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap), in place."""

    def outputs(self, x: Value) -> Value:
        """Only the rows whose logits are asked for."""
