"""Gemma 3n's language model: Gemma 4's small ones (normed values, a second embedding for every layer, last layers that
see earlier ones' keys) with several residual streams, a low-rank branch beside attention, and sparse MLPs."""

import math
from dataclasses import replace
from functools import partial
from statistics import NormalDist

from edgeq.models.altup import AltUp
from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.gemma import ACTIVATION
from edgeq.models.gemma4_text import read_per_layer, shared_layers
from edgeq.models.laurel import Laurel, LaurelNorms
from edgeq.models.layers import Layer
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import PlainHeadNorm, RMSNorm
from edgeq.models.rope_scaling import local_rope, rope
from edgeq.models.windows import by_layer

THETA, LOCAL_THETA = 1000000.0, 10000.0
USUAL = {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 262400,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "num_kv_shared_layers": 15,
}
SPARSE_LAYERS, SPARSITY = 10, 0.95  # of models with more layers, where nothing else is said
MOST_STREAMS = 64


def compose(config: Config) -> Model:
    """Every fifth layer is global."""
    config = config.usually(**USUAL)
    widths = read_widths(config)
    size = read_dimensions(config.changed(intermediate_size=max(widths)))
    n, layers = size.hidden_size, size.num_hidden_layers
    eps, activation = config.number("rms_norm_eps", 1e-6), config.activation("hidden_activation", ACTIVATION)
    norm = partial(RMSNorm, width=n, eps=eps)
    windows = by_layer(config, [(i + 1) % 5 != 0 for i in range(layers)])
    reads = shared_layers(config, windows)
    heads, bias = replace(read_heads(config, n, head_dim=256), scale=1.0), config.flag("attention_bias")
    local = local_rope(config, heads.head_dim, config.number("rope_local_base_freq", LOCAL_THETA))
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim, theta=THETA),
        head_norms(heads, eps),
        value_norm=PlainHeadNorm(heads.head_dim, eps),
    )
    norms = LaurelNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_feedforward_layernorm"),
        norm("post_ffw_norm", "post_feedforward_layernorm"),
        Laurel(n, config.integer("laurel_rank", 64), eps),
    )
    stack = []
    for window, source, width, cutoff in zip(windows, reads, widths, read_cutoffs(config, layers), strict=True):
        mixer = attention._replace(rope=local if window else attention.rope, reads=source).over(window)
        stack.append(Layer(norms, mixer, gated(n, width, activation)._replace(cutoff=cutoff)))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    cap, streams = config.optional("final_logit_softcapping", 30.0), read_streams(config, size, activation, eps)
    return Model(
        "gemma3n_text",
        size,
        attention,
        Embedding(embedding, factor=math.sqrt(n)),
        stack,
        Head(norm("output_norm", "model.norm"), head, cap=cap),
        settings={"rope_theta": THETA, "final_logit_softcapping": cap, **_said(config, streams)},
        around=streams,
    )


def _said(config: Config, streams: AltUp) -> dict[str, float]:
    """What else a configuration may leave out."""
    said = {"altup_num_inputs": streams.number, "altup_active_idx": streams.active}
    said |= {key: config.get(key) for key in ("sliding_window", "num_kv_shared_layers")}
    return {**said, "hidden_size_per_layer_input": streams.embedding.width}


def read_widths(config: Config) -> list[int]:
    """Values within the MLP of each layer: a number for all, or a list. CheckpointError for what is neither."""
    layers, given = config.integer("num_hidden_layers", most=10_000), config.get("intermediate_size")
    widths = given if isinstance(given, list) else [given] * layers
    if len(widths) != layers:
        raise config.malformed(f"intermediate_size is a list of {len(widths)}, there are {layers} layers")
    return [config.changed(intermediate_size=width).integer("intermediate_size") for width in widths]


def read_cutoffs(config: Config, layers: int) -> list[float | None]:
    """By how many standard deviations what counts of each layer's gate is above its mean: so many that the part that
    `activation_sparsity_pattern` says of a normal distribution is below. None where everything counts."""
    given = config.get("activation_sparsity_pattern")
    if given is None:
        sparse = SPARSE_LAYERS if layers > SPARSE_LAYERS else 0
        given = [SPARSITY] * sparse + [0.0] * (layers - sparse)
    if not isinstance(given, list) or len(given) != layers:
        raise config.malformed(f"activation_sparsity_pattern is {shown(given)}, a list of {layers} is needed")
    for part in given:
        if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part < 1:
            what = f"activation_sparsity_pattern has {shown(part)}"
            raise config.malformed(f"{what}, numbers from 0 to below 1 are needed")
    return [NormalDist().inv_cdf(part) if part > 0 else None for part in given]


def read_streams(config: Config, size: Dimensions, activation: str, eps: float) -> AltUp:
    """The residual streams, and the second embedding."""
    count, active = config.integer("altup_num_inputs", 4, MOST_STREAMS), config.get("altup_active_idx", 0)
    if not isinstance(active, int) or not 0 <= active < count:
        raise config.malformed(f"altup_active_idx is {shown(active)}, there are {count} streams")
    if config.get("hidden_size_per_layer_input") == 0:
        raise config.unsupported("hidden_size_per_layer_input is 0: not supported")
    embedding = read_per_layer(config, size, activation, eps, fewer=True)
    assert embedding is not None
    return AltUp(embedding, size.hidden_size, count, active, config.flag("altup_correct_scale", True), eps)
