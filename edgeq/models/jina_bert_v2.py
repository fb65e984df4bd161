"""Jina's second embedding models: BERT with gated MLPs, and in place of positions scores that fall with distance to
either side (ALiBi; arXiv:2310.19923). Their checkpoints call themselves `bert`."""

from dataclasses import replace
from functools import partial

from edgeq.models.alibi import slopes
from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """Every matrix but the gate has a bias. What has further norms, of queries and keys, has other names."""
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
    both = Matrix("ffn_gate", "mlp.gated_layers", m, n, fused=Fused(2 * m))
    mlp = GatedMLP(
        both,
        both._replace(name="ffn_up", fused=Fused(2 * m, first=m)),
        Matrix("ffn_down", "mlp.wo", n, m, bias=True),
        "gelu",
    )
    norms = NormedSums(
        norm("attn_output_norm", "attention.output.LayerNorm"), norm("layer_output_norm", "mlp.layernorm")
    )
    types = config.integer("type_vocab_size", 2)
    embedding = Embedding(
        Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, n),
        types=Matrix("token_types", "embeddings.token_type_embeddings", types, n),
        norm=norm("token_embd_norm", "embeddings.LayerNorm"),
    )
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "jina_bert_v2",
        size,
        attention,
        embedding,
        layers,
        None,
        prefixes=("", "bert."),
        layers_in="encoder.layer.{}.",
    )
