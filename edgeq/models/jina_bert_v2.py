"""Jina's second embedding models: BERT with gated MLPs, and in place of positions scores that fall with distance to
either side (ALiBi; arXiv:2310.19923); that of code norms queries and keys, too. Their checkpoints call themselves
`bert`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from edgeq.models.alibi import slopes
from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.layers import Layer, NormedSums, NormedTwice
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE

QK_NORM = "qk_post_norm"  # a key of ours: whether queries and keys are normed


def compose(config: Config) -> Model:
    """Every matrix but gate and up has a bias."""
    config.refuse(position_embedding_type="alibi", feed_forward_type="geglu", is_decoder=False, hidden_act="gelu")
    config.refuse(add_cross_attention=False)
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    count = config.integer("num_attention_heads")
    heads = replace(encoder_heads(config, count, n), slopes=slopes(count))
    attention = Attention(
        separate(n, heads, True, "attention.self.{}", ("query", "key", "value")),
        output(n, heads, True, "attention.output.dense"),
        heads,
        NO_ROPE,
    )
    after_mixer = norm("attn_output_norm", "attention.output.LayerNorm")
    if of_code(config):
        queries, keys = (norm(f"attn_{part}_norm", f"attention.self.layer_norm_{part}") for part in "qk")
        attention = attention._replace(norms=(queries, keys))
        again, last = norm("attn_norm_2", "layer_norm_1"), norm("layer_output_norm", "layer_norm_2")
        layer = Layer(NormedTwice(after_mixer, again, last), attention, read_mlp(n, m, "up_gated_layer", "down_layer"))
    else:
        norms = NormedSums(after_mixer, norm("layer_output_norm", "mlp.layernorm"))
        layer = Layer(norms, attention, read_mlp(n, m, "gated_layers", "wo"))
    types = config.integer("type_vocab_size", 2)
    embedding = Embedding(
        Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, n),
        types=Matrix("token_types", "embeddings.token_type_embeddings", types, n),
        norm=norm("token_embd_norm", "embeddings.LayerNorm"),
    )
    return Model(
        "jina_bert_v2",
        size,
        attention,
        embedding,
        [layer] * size.num_hidden_layers,
        None,
        prefixes=("", "bert."),
        layers_in="encoder.layer.{}.",
    )


def of_code(config: Config) -> bool:
    """Whether queries and keys are normed: the checkpoint names the code that does so."""
    code = config.get("auto_map")
    named = code.values() if isinstance(code, Mapping) else ()
    return config.flag(QK_NORM) or any("qk-post-norm" in str(one) for one in named)


def read_mlp(n: int, m: int, both: str, down: str) -> GatedMLP:
    """Gate and up are one matrix, whose halves that of code has the other way around."""
    turned = both.startswith("up")
    first, second = Fused(2 * m), Fused(2 * m, first=m)
    return GatedMLP(
        Matrix("ffn_gate", f"mlp.{both}", m, n, fused=second if turned else first),
        Matrix("ffn_up", f"mlp.{both}", m, n, fused=first if turned else second),
        Matrix("ffn_down", f"mlp.{down}", n, m, bias=True),
        "gelu",
    )
