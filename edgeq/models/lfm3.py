"""LFM3: LFM2 whose attention is local in every other of its layers, each kind rotated in its way, with a gate per head,
and with norms after both."""

from collections.abc import Sequence
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.layers import BothNorms, Layer, PreNorms
from edgeq.models.lfm2 import read_convolution, read_mlp
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, Mixer, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 1000000.0
KINDS = ("conv", "full_attention", "sliding_attention")
# What leaving out the rotary embedding means
ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "proportional", "rope_theta": THETA, "partial_rotary_factor": 0.5},
}


def compose(config: Config) -> Model:
    """The norms after both, and the gates, may be left out."""
    config = config.usually(num_key_value_heads=4, tie_word_embeddings=True)
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("norm_eps", 1e-5)
    norm, mixers = partial(RMSNorm, width=n, eps=eps), read_mixers(config, n, eps, size.num_hidden_layers)
    before = norm("attn_norm", "operator_norm"), norm("ffn_norm", "ffn_norm")
    after = norm("post_attention_norm", "post_operator_norm"), norm("post_ffw_norm", "post_ffn_norm")
    both = BothNorms(before[0], after[0], before[1], after[1])
    norms = both if config.flag("use_sandwich_norm", True) else PreNorms(*before)
    mlp = read_mlp(config, size)
    layers = [Layer(norms, mixer, mlp) for mixer in mixers]
    attention = next((mixer for mixer in mixers if isinstance(mixer, Attention)), None)
    if attention is None:
        raise config.unsupported("layer_types has no layer of attention, at least one is needed")
    return decoder("lfm3", config, size, attention, layers, norm, last="model.embedding_norm")


def read_mixers(config: Config, n: int, eps: float, layers: int) -> Sequence[Mixer]:
    """That of each layer; where nothing says it every second is a convolution."""
    usual = [("conv" if i % 2 or not i else ("sliding_attention", "full_attention")[i // 2 % 2]) for i in range(layers)]
    given = config.get("layer_types")
    heads, bias = read_heads(config, n, 128), config.flag("attention_bias")
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        config = config.changed(rope_parameters=ROPE)
    gate = Matrix("attn_gate", "self_attn.g_proj", heads.num_attention_heads, n)
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim, theta=THETA),
        head_norms(heads, eps),
        gate=gate if config.flag("use_attention_gate", True) else None,
    )
    kinds: dict[str, Mixer] = {"conv": read_convolution(config, n, 7), "full_attention": attention}
    named = config.layer_types(layers, KINDS, usual if given is None else given)
    if "sliding_attention" in named:
        local = attention.over(config.integer("sliding_window", 256))
        kinds["sliding_attention"] = local._replace(
            rope=rope(config, heads.head_dim, theta=THETA, kind="sliding_attention")
        )
    return [kinds[kind] for kind in named]
