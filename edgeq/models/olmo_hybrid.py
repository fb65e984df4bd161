"""OLMo Hybrid: three gated delta nets to each layer of attention, which norms what it gives, as OLMo 3's does; the nets
norm what they get, and may learn by more than they are told."""

from collections.abc import Mapping
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.delta_mixer import GatedDeltaNet, SixProjections, read_delta_shape
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, Norms, PostNorms, PreNorms
from edgeq.models.mixers import Attention, Mixer, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.qwen3_5_text import read_kinds
from edgeq.models.rope_scaling import whole_rope
from edgeq.ops import NO_ROPE, Rope

THETA = 10000.0
NET_EPS = 1e-5  # of the norm of a net's results, whatever that of others is
NAMES = ("linear_attn.o_proj", "linear_attn.o_norm")


def compose(config: Config) -> Model:
    """Norms of nets have names of their own in checkpoints; where these are saved again, those of attention, too."""
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-6)
    norm, heads, bias = partial(RMSNorm, width=n, eps=eps), read_heads(config, n), config.flag("attention_bias")
    rotation = read_rope(config, heads.head_dim)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, whole_norms(heads, eps))
    strength = 2.0 if config.flag("linear_allow_neg_eigval", True) else 1.0
    net = GatedDeltaNet(n, read_delta_shape(with_sizes(config, n)), SixProjections(), NET_EPS, strength, NAMES)
    mixed, fed, after = "attention_layer_norm", "feedforward_layer_norm", "post_attention_layernorm"
    before = PreNorms(norm("attn_norm", mixed, instead="input_layernorm"), norm("ffn_norm", fed, instead=after))
    behind = PostNorms(
        norm("post_attention_norm", after, instead=fed), norm("post_ffw_norm", "post_feedforward_layernorm")
    )
    kinds: dict[str, tuple[Norms, Mixer]] = {"linear_attention": (before, net), "full_attention": (behind, attention)}
    mlp = gated(n, size.intermediate_size, config.activation("hidden_act", "silu"))
    layers = [Layer(*kinds[kind], mlp) for kind in read_layers(config, size.num_hidden_layers)]
    return decoder("olmo_hybrid", config, size, attention, layers, norm)


def read_layers(config: Config, layers: int) -> list[str]:
    """The kind of each; the last one is attention where nothing is said and there are too few for another."""
    kinds = read_kinds(config, layers)
    few = config.get("layer_types") is None and "full_attention" not in kinds
    return [*kinds[:-1], "full_attention"] if few else kinds


def with_sizes(config: Config, n: int) -> Config:
    """With the sizes of nets that follow from others: keys have three quarters of the `n` values of the residual
    stream, values twice as many as keys."""
    given = {key: value for key, value in config.values.items() if value is not None}
    heads = config.integer("num_attention_heads")
    keys = config.integer("linear_num_key_heads", heads)
    one = config.integer("linear_key_head_dim", max(3 * n // (4 * keys), 1))
    usual = {
        "linear_num_key_heads": keys,
        "linear_num_value_heads": heads,
        "linear_key_head_dim": one,
        "linear_value_head_dim": 2 * one,
    }
    return config.within({**usual, **given})


def read_rope(config: Config, head_dim: int) -> Rope:
    """None where theta is said to be none, as released models have it."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    says = given if isinstance(given, Mapping) and "rope_theta" in given else config.values
    return NO_ROPE if says.get("rope_theta", THETA) is None else whole_rope(config, head_dim, theta=THETA)
