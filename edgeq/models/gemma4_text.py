"""Gemma 4's language model: Gemma 3 with unscaled scores and normed values; global layers have larger heads, fewer of
them, and a rotary embedding that leaves most of a head as it is. Small models have a second embedding for every layer,
and their last layers see the keys and values of earlier ones; the largest has experts beside its MLPs."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import (
    FeedForward,
    GatedMLP,
    MixtureOfExperts,
    gated,
    router,
    separate_experts,
)
from edgeq.models.gemma import ACTIVATION
from edgeq.models.layers import BothNorms, Layer
from edgeq.models.matrix import layer_name
from edgeq.models.mixers import Attention, Mixer, head_norms, output, separate
from edgeq.models.norms import PlainHeadNorm, RMSNorm
from edgeq.models.per_layer import LayerEnd, PerLayerEmbedding
from edgeq.models.rope_scaling import local_rope, rope
from edgeq.models.tensors import Tensors
from edgeq.models.windows import by_layer
from edgeq.ops import Graph, Heads, Value

THETA, LOCAL_THETA, GLOBAL_HEAD = 1000000.0, 10000.0, 512
ROPE = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": THETA},
    "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
}
ROUTER_SCALE = "ffn_gate_inp.scale"


class MLPAndExperts(NamedTuple):
    """An MLP, and experts, whose router reads x normed and times `hidden` learnt values."""

    mlp: GatedMLP
    experts: MixtureOfExperts
    after_mlp: RMSNorm
    before_experts: RMSNorm
    after_experts: RMSNorm
    hidden: int

    @property
    def one_input(self) -> bool:
        """Whether experts and their router read the same."""
        return False

    @property
    def experts_read(self) -> float:
        """Of those that are chosen from."""
        return self.experts.experts_read

    def tensors(self, t: Tensors) -> None:
        """The MLP's, the experts', the norms'."""
        for part in (self.mlp, self.experts, self.after_mlp, self.before_experts, self.after_experts):
            part.tensors(t)
        t.vector(ROUTER_SCALE, "router.scale", self.hidden)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h for the MLP, and of x, which is `add_to` and not added to, for the experts."""
        assert add_to is not None, "experts read what the MLP's result is added to"
        x, at = add_to, layer_name(i)
        dense = self.after_mlp.graph(g, self.mlp.graph(g, h, i), at)
        to_router = g.scale(g.rms_norm(x, f"{at}{ROUTER_SCALE}", self.after_mlp.eps), self.hidden**-0.5)
        chosen = self.experts.graph(
            g, self.before_experts.graph(g, x, at), i, scores=self.experts.scores(g, to_router, i)
        )
        return self.after_experts.graph(g, chosen, at, add_to=dense)


class ExpertNorms(NamedTuple):
    """BothNorms of a layer whose feed-forward reads x beside what is normed."""

    before_mixer: RMSNorm
    after_mixer: RMSNorm
    before_ffn: RMSNorm
    after_ffn: RMSNorm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        at = layer_name(i)
        x = self.after_mixer.graph(g, mixer.graph(g, self.before_mixer.graph(g, x, at), i), at, add_to=x)
        fed = ffn.graph(g, self.before_ffn.graph(g, x, at), i, x)
        return self.after_ffn.graph(g, fed, at, add_to=x)


def compose(config: Config) -> Model:
    """Every sixth layer is global, and the last one is."""
    config.refuse(use_bidirectional_attention="vision")  # which says nothing of text
    if config.get("rope_parameters") is None:
        config = config.changed(rope_parameters=ROPE)
    size = read_dimensions(config)
    n, m, layers = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    eps, activation = config.number("rms_norm_eps", 1e-6), config.activation("hidden_activation", ACTIVATION)
    norm = partial(RMSNorm, width=n, eps=eps)
    windows = by_layer(config.usually(sliding_window=512), [(i + 1) % 6 != 0 for i in range(layers)])
    windows[-1] = None
    reads = shared_layers(config, windows)
    attentions = [read_attention(config, size, i, windows, reads[i], eps) for i in range(layers)]
    wide = [2 if config.flag("use_double_wide_mlp") and source is not None else 1 for source in reads]
    mlps = [gated(n, factor * m, activation) for factor in wide]
    both = BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_feedforward_layernorm"),
        norm("post_ffw_norm", "post_feedforward_layernorm"),
    )
    if config.flag("enable_moe_block"):
        experts, norms = read_mixture(config, n, activation), ExpertNorms(*both)
        ffns = [MLPAndExperts(mlp, experts, *_expert_norms(norm), n) for mlp in mlps]
        stack = [Layer(norms, mixer, ffn) for mixer, ffn in zip(attentions, ffns, strict=True)]
    else:
        stack = [Layer(both, mixer, mlp) for mixer, mlp in zip(attentions, mlps, strict=True)]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    cap = config.optional("final_logit_softcapping")
    return Model(
        "gemma4_text",
        size,
        attentions[-1],
        Embedding(embedding, factor=math.sqrt(n)),
        stack,
        Head(norm("output_norm", "model.norm"), head, cap=cap),
        settings={"rope_theta": THETA, "final_logit_softcapping": cap},
        around=LayerEnd(read_per_layer(config, size, activation, eps)),
    )


def shared_layers(config: Config, windows: list[int | None]) -> list[int | None]:
    """For each layer the one whose keys and values it sees: the last `num_kv_shared_layers` see those of the last layer
    before them that is local, or global, as they are. CheckpointError if there is none."""
    layers, count = len(windows), config.get("num_kv_shared_layers") or 0
    if not isinstance(count, int) or not 0 <= count < layers:
        raise config.malformed(f"num_kv_shared_layers is {shown(count)}, there are {layers} layers")
    first = layers - count
    kept = {window is None: i for i, window in enumerate(windows[:first])}
    missing = [i for i in range(first, layers) if (windows[i] is None) not in kept]
    if missing:
        raise config.malformed(f"layer {missing[0]} sees the keys of an earlier one of its kind, and there is none")
    return [None if i < first else kept[windows[i] is None] for i in range(layers)]


def read_attention(
    config: Config, size: Dimensions, i: int, windows: list[int | None], reads: int | None, eps: float
) -> Attention:
    """Layer i's."""
    n, local, bias = size.hidden_size, windows[i] is not None, config.flag("attention_bias")
    heads = replace(_heads(config, n, i, local), scale=1.0, sliding_window=windows[i])
    head_dim = heads.head_dim
    rotation = local_rope(config, head_dim, LOCAL_THETA) if local else rope(config, head_dim, theta=THETA)
    return Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rotation,
        head_norms(heads, eps),
        value_norm=PlainHeadNorm(head_dim, eps),
        reads=reads,
        keys_twice=config.flag("attention_k_eq_v") and not local,
    )


def _heads(config: Config, hidden_size: int, i: int, local: bool) -> Heads:
    """Those of a layer: `per_layer_config` has what differs from the usual, in older checkpoints two keys do."""
    own = config.get("per_layer_config")
    if own is None:
        changed = {} if local else {"head_dim": config.get("global_head_dim", GLOBAL_HEAD)}
        if not local and config.flag("attention_k_eq_v") and config.get("num_global_key_value_heads") is not None:
            changed["num_key_value_heads"] = config.get("num_global_key_value_heads")
    else:
        if not isinstance(own, Mapping):
            raise config.malformed(f"per_layer_config is {shown(own)}, an object is needed")
        changed = {key.lstrip("0") or "0": value for key, value in own.items()}.get(str(i), {})
        if not isinstance(changed, Mapping) or changed.keys() - {"head_dim", "num_key_value_heads"}:
            raise config.unsupported(f"per_layer_config of layer {i} is {shown(changed)}: not supported")
    return read_heads(config.changed(**changed), hidden_size, head_dim=256)


def read_mixture(config: Config, n: int, activation: str) -> MixtureOfExperts:
    """The experts of a layer."""
    count, top_k = config.integer("num_experts", most=4096), config.integer("top_k_experts")
    if top_k > count:
        raise config.malformed(f"top_k_experts is {top_k}, there are {count} experts")
    if activation not in ("gelu_tanh", "silu", "relu"):
        raise config.unsupported(f"experts with {activation} are not supported")
    m = config.integer("moe_intermediate_size")
    matrices = [each._replace(each="") for each in separate_experts(n, m, count)]
    matrices = [each._replace(stacked=tuple(name.removeprefix("mlp.") for name in each.stacked)) for each in matrices]
    chosen = router(n, count, "router.proj", "")
    scales = "router.per_expert_scale"
    return MixtureOfExperts(chosen, matrices, count, top_k, normalized=True, activation=activation, scales=scales)


def _expert_norms(norm: "partial[RMSNorm]") -> tuple[RMSNorm, RMSNorm, RMSNorm]:
    """After the MLP, before and after the experts."""
    return (
        norm("post_ffw_norm_1", "post_feedforward_layernorm_1"),
        norm("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
        norm("post_ffw_norm_2", "post_feedforward_layernorm_2"),
    )


def read_per_layer(
    config: Config, size: Dimensions, activation: str, eps: float, fewer: bool = False
) -> PerLayerEmbedding | None:
    """The second embedding, if there is one; `fewer`: it may have fewer rows than there are tokens."""
    if config.get("hidden_size_per_layer_input", 256) in (None, 0):
        return None
    width, rows = (
        config.integer("hidden_size_per_layer_input", 256),
        config.integer("vocab_size_per_layer_input", 262144),
    )
    if width % 32:
        raise config.unsupported(f"hidden_size_per_layer_input is {width}, a multiple of 32 is needed")
    if rows < size.vocab_size and not fewer:
        raise config.malformed(f"vocab_size_per_layer_input is {rows}, there are {size.vocab_size} tokens")
    return PerLayerEmbedding(rows, width, size.num_hidden_layers, size.hidden_size, activation, eps)
