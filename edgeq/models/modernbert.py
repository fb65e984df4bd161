"""ModernBERT: an encoder with rotary embedding, gated MLPs, and two of three layers that see a window around each token
(arXiv:2412.13663)."""

from functools import partial

from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Head, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import fused_gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused, output
from edgeq.models.norms import LayerNorm, NoNorm
from edgeq.models.rope_scaling import local_rope, rope, rope_parameters
from edgeq.models.windows import KINDS
from edgeq.ops import Rope

THETA, LOCAL_THETA = 160000.0, 10000.0


def compose(config: Config) -> Model:
    """The first layer reads the normed embeddings as they are; what the last one gives is normed."""
    size = read_dimensions(config)
    n, m, layers = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    norm = partial(LayerNorm, width=n, eps=config.number("norm_eps", 1e-5), bias=config.flag("norm_bias"))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    config, theta = read_theta(config)
    bias = config.flag("attention_bias")
    attention = Attention(
        fused(n, heads, "attn.Wqkv", bias),
        output(n, heads, bias, "attn.Wo"),
        heads,
        rope(config, heads.head_dim, theta=theta),
    )
    local = read_local(config, heads.head_dim)
    mlp = fused_gated(
        n, m, config.activation("hidden_activation", "gelu"), "mlp.Wi", "mlp.Wo", bias=config.flag("mlp_bias")
    )
    after = norm("ffn_norm", "mlp_norm")
    windows = read_windows(config, layers)
    word = Matrix("token_embd", "model.embeddings.tok_embeddings", size.vocab_size, n)
    return Model(
        "modernbert",
        size,
        attention,
        Embedding(word, norm=norm("token_embd_norm", "model.embeddings.norm")),
        [
            Layer(
                PreNorms(norm("attn_norm", "attn_norm") if i else NoNorm(), after),
                attention._replace(rope=local if window else attention.rope).over(window),
                mlp,
            )
            for i, window in enumerate(windows)
        ],
        Head(norm("output_norm", "model.final_norm"), word),
        settings={"rope_theta": theta, "local_attention": 128},
        bare=True,
    )


def read_theta(config: Config) -> tuple[Config, float]:
    """The configuration with a theta for each kind of layer, and that of global ones."""
    config = config.usually(global_rope_theta=THETA, local_rope_theta=LOCAL_THETA)
    return config, float(rope_parameters(config).get("rope_theta", config.number("global_rope_theta")))


def read_local(config: Config, head_dim: int) -> Rope:
    """The rotary embedding of layers with a window. `rope_scaling` is of these, too, as transformers reads it."""
    theta = config.number("local_rope_theta")
    if config.get("rope_scaling"):
        return rope(config, head_dim, theta=theta, kind="sliding_attention")
    return local_rope(config, head_dim, theta)


def read_windows(config: Config, layers: int) -> list[int | None]:
    """Of each layer how far it sees on either side, its own position counted; None for all. `local_attention` counts
    both sides."""
    every = config.integer("global_attn_every_n_layers", 3)
    if config.get("layer_types") is None:
        local = [i % every != 0 for i in range(layers)]
    else:
        local = [kind == "sliding_attention" for kind in config.layer_types(layers, KINDS)]
    half = config.integer("local_attention", 128) // 2
    return [half + 1 if here else None for here in local]
