"""EXAONE 3 and 3.5: Llama whose checkpoints have names of their own (arXiv:2412.04862)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 500000.0
# What newer configurations call it -> what the first ones do
OLDER = {"num_hidden_layers": "num_layers", "rms_norm_eps": "layer_norm_epsilon", "hidden_act": "activation_function"}


def compose(config: Config) -> Model:
    """Under the names of the first configurations, or the usual ones."""
    given = {key: config.get(name) for key, name in OLDER.items() if config.get(name) is not None}
    config = config.changed(**{key: value for key, value in given.items() if config.get(key) is None})
    size = read_dimensions(config)
    n, m, bias = size.hidden_size, size.intermediate_size, config.flag("attention_bias")
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads = read_heads(config.usually(num_key_value_heads=8), n)
    source = "attn.attention.{}_proj"
    qkv, back = separate(n, heads, bias, source), output(n, heads, bias, "attn.attention.out_proj")
    attention = Attention(qkv, back, heads, rope(config, heads.head_dim, theta=THETA))
    kind, mlp_bias = config.activation("hidden_act", "silu"), config.flag("mlp_bias")
    mlp = gated(n, m, kind, mlp_bias, names=("c_fc_0", "c_fc_1", "c_proj"))
    norms = PreNorms(norm("attn_norm", "ln_1"), norm("ffn_norm", "ln_2"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"), "transformer.wte")
    return Model(
        "exaone",
        size,
        attention,
        Embedding(embedding),
        [Layer(norms, attention, mlp)] * size.num_hidden_layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
        settings={"rope_theta": THETA},
    )
