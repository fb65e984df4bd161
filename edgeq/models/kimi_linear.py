"""Kimi Linear: three layers of delta nets each of whose channels forgets by itself to one of latent attention without
rotary embedding; experts after the first layers (arXiv:2510.26692)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.deepseek_v2 import USUAL
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import FeedForward, SharedMLP, gated, separate_experts
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.mixers import Mixer
from edgeq.models.norms import HeadNorm, RMSNorm
from edgeq.models.sigmoid_mixture import dense_layers, read_router
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Rope, Value

# What its first configuration calls things -> what the others do; the first counts
NAMES = {
    "model_max_length": "max_position_embeddings",
    "moe_renormalize": "norm_topk_prob",
    "num_expert_group": "n_group",
    "num_experts": "n_routed_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
}
# What leaving these out means
DEFAULTS = {
    **USUAL,
    "q_lora_rank": None,
    "max_position_embeddings": 1048576,
    "moe_intermediate_size": 1024,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "routed_scaling_factor": 2.446,
}
SOURCE = "block_sparse_moe"
KINDS = ("linear_attention", "full_attention")


class KimiDelta(NamedTuple):
    """Of `n` values of the residual stream; `heads` of `size` values; a convolution of `taps` positions; `eps` is that
    of the norm of what heads give, which a gate multiplies."""

    n: int
    heads: int
    size: int
    taps: int
    eps: float

    @property
    def wide(self) -> int:
        """Values of all heads."""
        return self.heads * self.size

    @property
    def matrices(self) -> dict[str, Matrix]:
        """To what is learned by, to what is forgotten by and to the gate, these through fewer values, and back."""
        n, wide, size = self.n, self.wide, self.size
        found = [Matrix("ssm_beta", "self_attn.b_proj", self.heads, n)]
        for part in "fg":
            found += [
                Matrix(f"ssm_{part}_a", f"self_attn.{part}_a_proj", size, n),
                Matrix(f"ssm_{part}_b", f"self_attn.{part}_b_proj", wide, size),
            ]
        found.append(Matrix("ssm_out", "self_attn.o_proj", n, wide))
        return {matrix.name: matrix for matrix in found}

    @property
    def norm(self) -> HeadNorm:
        """Of what each head gives."""
        return HeadNorm("ssm_norm", "self_attn.o_norm", self.size, self.eps)

    def tensors(self, t: Tensors) -> None:
        """The projections, the convolution, decays, the norm."""
        wide = self.wide
        t.joined("attn_qkv", {f"self_attn.{part}_proj": wide for part in "qkv"}, self.n)
        apart = {f"self_attn.{part}_conv1d": wide for part in "qkv"}
        t.depthwise_joined("ssm_conv1d", apart, "self_attn.conv1d", self.taps)
        for matrix in self.matrices.values():
            matrix.tensors(t)
        t.vector("ssm_dt.bias", "self_attn.dt_bias", wide)
        t.flat_rates("ssm_a.weight", "self_attn.A_log", (1, 1, self.heads, 1))
        self.norm.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at, matrices = layer_name(i), self.matrices
        x, beta = g.linear(h, f"{at}attn_qkv.weight"), matrices["ssm_beta"].graph(g, h, at)
        low_f, low_g = (matrices[f"ssm_{part}_a"].graph(g, h, at) for part in "fg")
        forget, gate = matrices["ssm_f_b"].graph(g, low_f, at), matrices["ssm_g_b"].graph(g, low_g, at)
        x = g.causal_conv(x, f"{at}ssm_conv1d.weight", None, layer=i)
        x = g.channel_delta(x, forget, beta, f"{at}ssm_a.weight", f"{at}ssm_dt.bias", self.heads, layer=i)
        return matrices["ssm_out"].graph(g, g.sigmoid_mul(self.norm.graph(g, x, at), gate), at, add_to)


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    config.refuse(hidden_act="silu", moe_router_activation_func="sigmoid", moe_layer_freq=1, mla_use_nope=True)
    own = {there: config.get(here) for here, there in NAMES.items() if config.get(here) is not None}
    config = config.changed(**own).usually(**DEFAULTS)
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    latent = read_latent_attention(config.changed(rope_parameters=None, rope_scaling=None), n, interleaved=False)
    still = Rope((0.0,) * len(latent.rope.inverse_frequencies))
    attention = latent._replace(rope=still)
    mixers: tuple[Mixer, Mixer] = read_delta(config, n, eps), attention
    mlp, mixture = gated(n, size.intermediate_size, "silu"), read_mixture(config, n)
    dense = read_dense(config, size.num_hidden_layers)
    kinds = read_kinds(config, size.num_hidden_layers)
    layers = [
        Layer(pre_norms(norm), mixers[kind == KINDS[1]], mlp if here else mixture)
        for kind, here in zip(kinds, dense, strict=True)
    ]
    return decoder("kimi_linear", config, size, attention, layers, norm)


def linear_config(config: Config) -> Config:
    """What is said of the delta nets, which the first configuration keeps together."""
    given = config.get("linear_attn_config") or {}
    if not isinstance(given, Mapping):
        raise config.malformed(f"linear_attn_config is {shown(given)}, an object is needed")
    names = {"linear_head_dim": "head_dim", "linear_num_heads": "num_heads"}
    names |= {"linear_conv_kernel_dim": "short_conv_kernel_size"}
    values = {name: given.get(there, config.get(name)) for name, there in names.items()}
    return config.within({**given, **values})


def read_delta(config: Config, n: int, eps: float) -> KimiDelta:
    """That of all such layers. UnsupportedError for heads whose size is no multiple of 16."""
    own = linear_config(config)
    heads, size = own.integer("linear_num_heads", 32, most=65_536), own.integer("linear_head_dim", 128, most=65_536)
    taps = own.integer("linear_conv_kernel_dim", 4, most=64)
    if size % 16:
        raise config.unsupported(f"linear_head_dim is {size}, a multiple of 16 is needed")
    if taps < 2:
        raise config.unsupported("linear_conv_kernel_dim is 1, at least 2 is needed")
    return KimiDelta(n, heads, size, taps, eps)


def read_kinds(config: Config, layers: int) -> list[str]:
    """As `layer_types` says; as lists of numbers from 1 on say; or every fourth layer after the first attends."""
    if config.get("layer_types") is not None:
        return config.layer_types(layers, KINDS)
    attends: Any = linear_config(config).get("full_attn_layers")
    if attends is None:
        return [KINDS[bool(i) and i % 4 == 0] for i in range(layers)]
    if not isinstance(attends, list) or not all(type(i) is int and 1 <= i <= layers for i in attends):
        raise config.malformed(f"full_attn_layers is {shown(attends)}, a list of layers from 1 on is needed")
    return [KINDS[i + 1 in attends] for i in range(layers)]


def read_dense(config: Config, layers: int) -> list[bool]:
    """Which layers have an MLP alone."""
    if config.get("mlp_layer_types") is not None:
        kinds = config.layer_types(layers, ("dense", "sparse"), config.get("mlp_layer_types"))
        return [kind == "dense" for kind in kinds]
    return dense_layers(config, "first_k_dense_replace", 1, layers)


def read_mixture(config: Config, n: int) -> FeedForward:
    """DeepSeek-V3's, under names of its own."""
    m, count = config.integer("moe_intermediate_size"), config.integer("n_routed_experts", most=4096)
    matrices = separate_experts(n, m, count, SOURCE + ".experts.{{}}.{}", ("w1", "w3", "w2"))
    experts = read_router(config, n, matrices, source=f"{SOURCE}.gate")
    beside = config.integer("n_shared_experts") * m
    return SharedMLP(experts, gated(n, beside, "silu", source=SOURCE + ".shared_experts.{}", suffix="_shexp"))
