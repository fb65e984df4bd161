"""GPT-J: attention and an MLP without a gate side by side on one LayerNorm; of each head a part is rotated, by
neighbours."""

from collections.abc import Callable
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked
from edgeq.models.feed_forward import plain
from edgeq.models.gpt2 import read_gpt_dimensions
from edgeq.models.layers import Layer, Parallel
from edgeq.models.mixers import Attention, Projections, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.ops import Heads, Rope

THETA = 10000.0


def compose(config: Config) -> Model:
    """Projections to queries, keys and values are a tensor each."""
    return rotated("gptj", config, partial(separate, source="attn.{}_proj"))


def rotated(name: str, config: Config, projections: Callable[[int, Heads], Projections]) -> Model:
    """With these projections of so many values. Biases are those of the MLP and of the head."""
    size = read_gpt_dimensions(config)
    n, count = size.hidden_size, config.integer("n_head")
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    heads = checked(config, count, count, n // count)
    turned = config.integer("rotary_dim", 64, most=heads.head_dim)
    if turned % 2:
        raise config.malformed(f"rotary_dim is {turned}, an even number is needed")
    rotation = Rope(tuple(THETA ** (-2.0 * i / turned) for i in range(turned // 2)), interleaved=True)
    attention = Attention(projections(n, heads), output(n, heads, source="attn.out_proj"), heads, rotation)
    activation = config.activation("activation_function", "gelu_new")
    mlp = plain(n, size.intermediate_size, activation, "mlp.fc_in", "mlp.fc_out", bias=True)
    tied = config.flag("tie_word_embeddings")
    embedding, head = embedding_and_head(size, tied, "transformer.wte", bias=True)
    layers = [Layer(Parallel(norm("attn_norm", "ln_1")), attention, mlp)] * size.num_hidden_layers
    return Model(
        name,
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )
