"""GPT-Neo (TinyStories is of its kind, too): GPT-2 whose scores are not scaled, with local layers in between."""

from dataclasses import replace
from functools import partial
from typing import Any

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.windows import Windows
from edgeq.ops import NO_ROPE

# What the other architectures call it -> what GPT-Neo does; either may be said
NAMES = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}


def compose(config: Config) -> Model:
    """Projections to queries, keys and values have no bias, all other matrices have one."""
    config = config.changed(**{own: config.get(own, config.get(usual)) for usual, own in NAMES.items()})
    size, count = read_size(config), config.integer("num_heads", 16)
    n = size.hidden_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    heads = replace(checked(config, count, count, n // count), scale=1.0)
    source = "attn.attention.{}"
    qkv = separate(n, heads, source=source.format("{}_proj"))
    attention = Attention(qkv, output(n, heads, True, source.format("out_proj")), heads, NO_ROPE)
    kind = config.activation("activation_function", "gelu_new")
    mlp = plain(n, size.intermediate_size, kind, "mlp.c_fc", "mlp.c_proj", bias=True)
    norms = PreNorms(norm("attn_norm", "ln_1"), norm("ffn_norm", "ln_2"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True), "transformer.wte")
    positions = Matrix("position_embd", "transformer.wpe", size.max_position_embeddings, n)
    windows = read_windows(config, size.num_hidden_layers)
    return Model(
        "gpt_neo",
        size,
        attention,
        Embedding(embedding, positions=positions),
        [Layer(norms, attention.over(window), mlp) for window in windows],
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )


def read_size(config: Config) -> Dimensions:
    """The MLP is four times as wide as the residual stream where nothing is said."""
    n = config.integer("hidden_size", 2048, most=1 << 28)
    return Dimensions(
        n,
        config.integer("intermediate_size", 4 * n),
        config.integer("num_layers", 24, most=MOST_LAYERS),
        config.integer("vocab_size"),
        config.integer("max_position_embeddings", 2048),
    )


def read_windows(config: Config, layers: int) -> Windows:
    """`attention_types` lists kinds, and how often these come, one after the other; every second layer is local where
    nothing is said. CheckpointError for a list of other layers than there are."""
    given: Any = config.get("attention_types")
    given = [[["global", "local"], 12]] if given is None else given
    kinds: list[Any] = []
    try:
        for some, times in given:
            kinds += [*some] * min(int(times), layers)
    except (TypeError, ValueError):
        kinds = []
    if len(kinds) != layers or not all(kind in ("global", "local") for kind in kinds):
        raise config.malformed(f"attention_types is {shown(given)}, kinds of {layers} layers are needed")
    window = config.integer("window_size", 256)
    return [window if kind == "local" else None for kind in kinds]
