"""EuroBERT: Llama whose tokens see all of their text (arXiv:2503.05500)."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.windows import Windows
from edgeq.ops import Rope


def compose(config: Config) -> Model:
    """All layers see all of a text."""
    layers = config.integer("num_hidden_layers")
    head_dim = read_heads(config, config.integer("hidden_size")).head_dim
    return encoder("eurobert", config, [whole_rope(config, head_dim)] * layers, [None] * layers, 1e-5)


def encoder(name: str, config: Config, rotations: list[Rope], windows: Windows, eps: float) -> Model:
    """With the rotation and the window of each layer; `eps` is what leaving out that of norms means. A head that
    guesses tokens is not needed."""
    size = read_dimensions(config)
    n = size.hidden_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", eps))
    heads, bias = replace(read_heads(config, n), causal=False), config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotations[-1])
    mlp = gated(n, size.intermediate_size, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    word = Matrix("token_embd", "model.embed_tokens", size.vocab_size, n)
    layers = [
        Layer(pre_norms(norm), attention._replace(rope=rotation).over(window), mlp)
        for rotation, window in zip(rotations, windows, strict=True)
    ]
    return Model(
        name,
        size,
        attention,
        Embedding(word),
        layers,
        Head(norm("output_norm", "model.norm"), word),
        bare=True,
    )
