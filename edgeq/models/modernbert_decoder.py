"""ModernBERT as a decoder (Ettin, arXiv:2507.11412): tokens see those before them only, and the head has a matrix, an
activation and a norm of its own before the embedding's."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, Transform, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import fused_gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.modernbert import read_local, read_theta
from edgeq.models.norms import LayerNorm, NoNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import by_layer


def compose(config: Config) -> Model:
    """The first layer reads the normed embeddings as they are. Local layers see half of `local_attention`."""
    size = read_dimensions(config)
    n, m, layers = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    bias, count = config.flag("attention_bias"), config.integer("num_attention_heads")
    norm = partial(LayerNorm, width=n, eps=config.number("norm_eps", 1e-5), bias=config.flag("norm_bias"))
    heads = checked(config, count, count, n // count)
    config, theta = read_theta(config)
    rotation = rope(config, heads.head_dim, theta=theta)
    qkv = separate(n, heads, bias, "attn.{}_proj")
    attention = Attention(qkv, output(n, heads, bias, "attn.Wo"), heads, rotation)
    local = read_local(config, heads.head_dim)
    kind = config.activation("hidden_activation", "gelu")
    mlp = fused_gated(n, m, kind, "mlp.Wi", "mlp.Wo", bias=config.flag("mlp_bias"))
    every = config.integer("global_attn_every_n_layers", 3)
    half = max(config.integer("local_attention", 128) // 2, 1)
    windows = by_layer(config.changed(sliding_window=half), [i % every != 0 for i in range(layers)])
    after = norm("ffn_norm", "mlp_norm")
    tied, biased = config.flag("tie_word_embeddings", True), config.flag("decoder_bias", True)
    embedding, head = embedding_and_head(size, tied, "model.embeddings.tok_embeddings", "decoder", biased)
    return Model(
        "modernbert-decoder",
        size,
        attention,
        Embedding(embedding, norm=norm("token_embd_norm", "model.embeddings.norm")),
        [
            Layer(
                PreNorms(norm("attn_norm", "attn_norm") if i else NoNorm(), after),
                attention._replace(rope=local if window else rotation).over(window),
                mlp,
            )
            for i, window in enumerate(windows)
        ],
        read_head(config, head, norm),
        settings={"rope_theta": theta},
    )


def read_head(config: Config, head: Matrix, norm: "partial[LayerNorm]") -> Head:
    """`norm` makes a norm of its names here and there."""
    n = head.columns
    transform = Transform(
        Matrix("output_dense", "lm_head.dense", n, n, config.flag("classifier_bias")),
        config.activation("classifier_activation", "gelu"),
        norm("output_dense_norm", "lm_head.norm"),
    )
    return Head(norm("output_norm", "model.final_norm"), head, transform=transform)
