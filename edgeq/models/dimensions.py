"""The sizes of a model, as `config.json` gives them."""

from typing import NamedTuple

from edgeq.models.config import Config
from edgeq.ops import Heads

MOST_LAYERS = 10_000
LARGEST_HEAD = 65_536


class Dimensions(NamedTuple):
    """Values of the residual stream and within the MLP, layers, tokens, and positions that the model was trained on."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int


def read_dimensions(config: Config) -> Dimensions:
    """Under the names that most architectures have for them."""
    return Dimensions(
        config.integer("hidden_size"),
        config.integer("intermediate_size"),
        config.integer("num_hidden_layers", most=MOST_LAYERS),
        config.integer("vocab_size"),
        config.integer("max_position_embeddings", 2048),
    )


def read_heads(config: Config, hidden_size: int, head_dim: int | None = None) -> Heads:
    """An attention's shape; without a `head_dim` heads share the hidden size."""
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    return checked(config, heads, kv_heads, config.integer("head_dim", head_dim or hidden_size // heads, LARGEST_HEAD))


def checked(config: Config, heads: int, kv_heads: int, head_dim: int) -> Heads:
    """Heads that can be computed; CheckpointError for others."""
    if heads % kv_heads:
        raise config.malformed(f"{heads} attention heads cannot share {kv_heads} key/value heads evenly")
    if not 1 <= head_dim <= LARGEST_HEAD:
        raise config.malformed(f"head_dim is {head_dim}, a positive integer is needed, at most {LARGEST_HEAD}")
    if head_dim % 2:
        raise config.malformed(f"head_dim is {head_dim}, rotary embedding needs an even number")
    return Heads(heads, kv_heads, head_dim)
