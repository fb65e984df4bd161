"""BERT and its sentence encoders: every token sees all of its text, norms come after each sum (arXiv:1810.04805)."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE, Heads


def compose(config: Config) -> Model:
    """BERT without a head: the last layer's states are the result."""
    return encoder("bert", config, read_dimensions(config))


def encoder(
    name: str, config: Config, size: Dimensions, positions: Matrix | None = None, narrow: int | None = None
) -> Model:
    """BERT or one of its kin, whose checkpoint's names begin with `name`. Every matrix has a bias; what a pooler or a
    head has is not needed. `positions` are embeddings of positions that lie elsewhere; embeddings of `narrow` values
    are projected to the hidden size."""
    config.refuse(is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    attention = Attention(
        separate(n, heads, True, "attention.self.{}", ("query", "key", "value")),
        output(n, heads, True, "attention.output.dense"),
        heads,
        NO_ROPE,
    )
    mlp = plain(n, m, config.activation("hidden_act", "gelu"), "intermediate.dense", "output.dense", bias=True)
    norms = NormedSums(
        norm("attn_output_norm", "attention.output.LayerNorm"), norm("layer_output_norm", "output.LayerNorm")
    )
    types = config.integer("type_vocab_size", 2)  # sentences are of the first one
    width = narrow or n
    embedding = Embedding(
        Matrix("token_embd", f"{name}.embeddings.word_embeddings", size.vocab_size, width),
        positions=(positions or position_table(name, size))._replace(columns=width),
        types=Matrix("token_types", f"{name}.embeddings.token_type_embeddings", types, width),
        norm=norm("token_embd_norm", f"{name}.embeddings.LayerNorm", width=width),
        projection=Matrix("token_embd_proj", f"{name}.embeddings_project", n, width, bias=True) if narrow else None,
    )
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        name,
        size,
        attention,
        embedding,
        layers,
        None,
        prefixes=(f"{name}.", ""),
        layers_in=f"{name}.encoder.layer.{{}}.",
    )


def encoder_heads(config: Config, heads: int, n: int) -> Heads:
    """Heads share the hidden size; none share keys."""
    if n % heads:
        raise config.malformed(f"{heads} attention heads cannot share {n} values evenly")
    return replace(checked(config, heads, heads, n // heads), causal=False)


def position_table(name: str, size: Dimensions) -> Matrix:
    """The embeddings of positions."""
    positions = f"{name}.embeddings.position_embeddings"
    return Matrix("position_embd", positions, size.max_position_embeddings, size.hidden_size)
