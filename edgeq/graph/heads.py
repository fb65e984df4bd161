"""The shape of an attention."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """Query heads, key/value heads, values per head, and a window of positions if local.

    scale: what q k^T is multiplied by, 1 / sqrt(head_dim) if None; softcap: c of c tanh(score / c), none if 0; sinks:
    the weight that has one more score per query head, which takes part in the softmax and has no value
    slopes: what each position between a token and one that it sees takes off the scaled score, of each query head
    (ALiBi, arXiv:2108.12409)
    distances: the weight, flattened [buckets, query heads], of what is added to a scaled score by how far the two
    tokens are apart (ops/distances.py)
    causal: a token sees those before it only; otherwise all of its text, which must be evaluated at once, or within a
    window, which counts its own position, as many after it as before it
    whole_images: if not 0, the rows that stand for an image in a text, of which there are so many at most, see one
    another, further ones too, and must be evaluated at once; a window counts backwards alone
    chunked: in place of a window that moves with it a token sees those before it in its own chunk of `sliding_window`
    positions, which begin at multiples of that
    latent: if not 0, a value is what its key begins with, so many values: the cache holds keys alone
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None = None
    scale: float | None = None
    softcap: float = 0.0
    sinks: str = ""
    causal: bool = True
    latent: int = 0
    slopes: tuple[float, ...] = ()
    distances: str = ""
    whole_images: int = 0
    chunked: bool = False

    @property
    def value_dim(self) -> int:
        """Values of a value head."""
        return self.latent or self.head_dim
