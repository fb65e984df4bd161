"""nanochat: norms without weights, one more before the first layer, heads normed after they are rotated, which is the
other way round, and an MLP without a gate."""

from dataclasses import replace

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import PlainHeadNorm, PlainRMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Without weights a head may as well be normed before it is rotated. Logits are capped."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-6)
    norm, heads, bias = PlainRMSNorm(eps), read_heads(config, n), config.flag("attention_bias")
    forward = rope(config, heads.head_dim)
    rotation = replace(forward, inverse_frequencies=tuple(-turn for turn in forward.inverse_frequencies))
    head_norm = PlainHeadNorm(heads.head_dim, eps)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, (head_norm, head_norm))
    mlp = plain(n, m, config.activation("hidden_act", "relu2"), "mlp.fc1", "mlp.fc2")
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"))
    cap = config.optional("final_logit_softcapping", 15.0)
    layers = [Layer(PreNorms(norm, norm), attention, mlp)] * size.num_hidden_layers
    return Model("nanochat", size, attention, Embedding(embedding, norm=norm), layers, Head(norm, head, cap=cap))
