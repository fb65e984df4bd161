"""RWKV-7 (Goose): recurrent layers and nothing else (arXiv:2503.14456), as flash-linear-attention saves it."""

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mamba import POSITIONS
from edgeq.models.mixers import NoAttention
from edgeq.models.norms import LayerNorm
from edgeq.models.rwkv7_mixer import ChannelMix, FirstValues, Ranks, TimeMix

RANKS = {"decay_low_rank_dim": 64, "a_low_rank_dim": 64, "v_low_rank_dim": 16, "gate_low_rank_dim": 128}


def compose(config: Config) -> Model:
    """The first layer's values are those that others are drawn to."""
    config.refuse(hidden_act="sqrelu", norm_first=True, attn=None)
    n = config.integer("hidden_size", 2048)
    size = Dimensions(
        n,
        read_width(config, n),
        config.integer("num_hidden_layers", 24, most=MOST_LAYERS),
        config.integer("vocab_size", 32000),
        POSITIONS,  # whatever max_position_embeddings says: no number of positions is special
    )
    eps, bias, head_dim = config.number("norm_eps", 1e-5), config.flag("norm_bias", True), read_head(config, n)
    ranks = Ranks(*(config.integer(key, usual) for key, usual in RANKS.items()))

    def norm(name: str, source: str) -> LayerNorm:
        return LayerNorm(name, source, n, eps, bias)

    norms, mlp = PreNorms(norm("attn_norm", "attn_norm"), norm("attn_norm_2", "ffn_norm")), ChannelMix(n, size[1])
    layers = [
        Layer(norms, TimeMix(n, head_dim, ranks, head_dim * eps, first=i == 0), mlp)
        for i in range(size.num_hidden_layers)
    ]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"), embedding="model.embeddings")
    return Model(
        "rwkv7",
        size,
        NoAttention(),
        Embedding(embedding, norm=norm("token_embd_norm", "model.layers.0.pre_norm")),
        layers,
        Head(norm("output_norm", "model.norm"), head),
        settings={**RANKS, "head_dim": head_dim, "intermediate_size": size.intermediate_size},
        around=FirstValues(),
    )


def read_width(config: Config, n: int) -> int:
    """Values in between of the MLP: as said, or some times `n`, as a multiple of 32."""
    if config.get("intermediate_size") is not None:
        return config.integer("intermediate_size")
    return -(-int(n * (config.optional("hidden_ratio") or 4)) // 32) * 32


def read_head(config: Config, n: int) -> int:
    """Values of a head. CheckpointError for heads that do not share `n` evenly, UnsupportedError for sizes that are no
    multiple of 16, and for values of another size than keys."""
    if config.get("head_dim", 64) is None:
        size = n // config.integer("num_heads", most=n)
    else:
        size = config.integer("head_dim", 64)
    if n % size:
        raise config.malformed(f"head_dim is {size}, which does not divide the hidden size, {n}")
    if size % 16:
        raise config.unsupported(f"head_dim is {size}: a multiple of 16 is needed")
    given = config.get("value_dim")
    if given not in (None, n) and not (isinstance(given, list) and set(map(str, given)) == {str(n)}):
        raise config.unsupported(f"value_dim {str(given)[:60]} is not supported; supported is hidden_size, {n}")
    return size
