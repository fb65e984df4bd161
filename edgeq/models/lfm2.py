"""LFM2: most layers are short convolutions with two gates, the others attention with normed queries and keys."""

from collections.abc import Sequence
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, GatedMLP, gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, ShortConvolution, output, separate
from edgeq.models.norms import HeadNorm, RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 1000000.0


def compose(config: Config) -> Model:
    """An MLP in every layer."""
    size = read_dimensions(config.changed(intermediate_size=mlp_size(config)))
    mlp = read_mlp(config, size)
    return lfm2("lfm2", config, size, [mlp] * size.num_hidden_layers)


def read_mlp(config: Config, size: Dimensions) -> GatedMLP:
    """That of a layer."""
    activation = config.activation("hidden_act", "silu")
    names = ("w1", "w3", "w2")
    return gated(size.hidden_size, size.intermediate_size, activation, source="feed_forward.{}", names=names)


def lfm2(name: str, config: Config, size: Dimensions, ffns: Sequence[FeedForward]) -> Model:
    """With these feed-forwards. The norm after the last layer is named after the embedding."""
    n, eps = size.hidden_size, config.number("norm_eps", 1e-5)
    norm, heads = partial(RMSNorm, width=n, eps=eps), read_heads(config, n)
    attention = Attention(
        separate(n, heads),
        output(n, heads, source="self_attn.out_proj"),
        heads,
        rope(config, heads.head_dim, theta=THETA),
        (
            HeadNorm("attn_q_norm", "self_attn.q_layernorm", heads.head_dim, eps),
            HeadNorm("attn_k_norm", "self_attn.k_layernorm", heads.head_dim, eps),
        ),
    )
    kinds = layer_types(config, size.num_hidden_layers)
    convolution = read_convolution(config, n)
    norms = PreNorms(norm("attn_norm", "operator_norm"), norm("ffn_norm", "ffn_norm"))
    tied = config.get("tie_embedding", config.get("tie_word_embeddings", True))
    mixers = [convolution if kind == "conv" else attention for kind in kinds]
    layers = [Layer(norms, mixer, ffn) for mixer, ffn in zip(mixers, ffns, strict=True)]
    return decoder(
        name,
        config.changed(tie_word_embeddings=bool(tied)),
        size,
        attention,
        layers,
        norm,
        last="model.embedding_norm",
        settings={"rope_theta": THETA},
    )


def read_convolution(config: Config, n: int, taps: int = 3) -> ShortConvolution:
    """Of `n` channels, over `taps` positions unless the configuration says otherwise."""
    if n % 16:
        raise config.unsupported(f"hidden_size is {n}, a multiple of 16 is needed")
    return ShortConvolution(n, config.integer("conv_L_cache", taps, most=64), config.flag("conv_bias"))


def mlp_size(config: Config) -> int:
    """Values within the MLP: two thirds of what is given, times a factor, rounded up, unless it is said to be final."""
    size = "block_ff_dim" if config.get("block_ff_dim") is not None else "intermediate_size"
    width = config.integer(size, 12288, most=1 << 28)
    if not config.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(config.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
    multiple = config.integer("block_multiple_of", 256)
    return -(-width // multiple) * multiple


def layer_types(config: Config, layers: int) -> list[str]:
    """Which layers are convolutions; older configurations list those that are not."""
    kinds = config.get("layer_types")
    if kinds is None:
        attention = config.get("full_attn_idxs")
        attention = range(layers) if attention is None else attention
        kinds = ["full_attention" if i in attention else "conv" for i in range(layers)]
    return config.layer_types(layers, ("full_attention", "conv"), kinds)
