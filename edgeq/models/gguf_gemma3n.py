"""Gemma 3n in GGUF: much of it GGUF's readers know by themselves, so only models that are so can be written."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.altup import INTO, OUT, AltUp
from edgeq.models.composition import Model
from edgeq.models.config import Config as ModelConfig
from edgeq.models.config import shown
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.gemma3n_text import LOCAL_THETA, SPARSE_LAYERS, SPARSITY
from edgeq.models.gguf_hooks import Config, Shapes
from edgeq.models.laurel import LaurelNorms
from edgeq.models.mixers import Attention
from edgeq.models.per_layer import TABLE
from edgeq.models.rope_scaling import rope_parameters

STREAMS, RANK, WIDTH = 4, 64, 256  # of AltUp, of the low-rank branch, of a layer's part of the second embedding
OWN_KEYS = 20  # layers before those that see the keys and values of earlier ones
CAP = 30.0  # of logits
SCALE = "activation_sparsity_scale"
STACKED = {whole: tuple(f"{whole}_{i}" for i in range(1, STREAMS)) for whole in (INTO, OUT)}  # a matrix of each there


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """What GGUF says of each layer, and what its tensors say."""
    layers, local = values["block_count"], values.get("attention.sliding_window_pattern")
    if local is None:
        local = [(i + 1) % 5 != 0 for i in range(layers)]
    if not isinstance(local, list) or len(local) != layers:
        raise FormatError("gemma3n.attention.sliding_window_pattern does not say which layers are local: convert again")
    if values.get("altup.num_inputs") != STREAMS:
        raise UnsupportedError(f"gemma3n.altup.num_inputs is {shown(values.get('altup.num_inputs'))}, not {STREAMS}")
    return {
        "layer_types": ["sliding_attention" if each else "full_attention" for each in local],
        "activation_sparsity_pattern": _sparsities(values.get(SCALE), layers),
        "laurel_rank": shapes.get("blk.0.laurel_l.weight", (RANK,))[0],
        "rope_local_base_freq": values.get("rope.freq_base_swa", LOCAL_THETA),
        "vocab_size_per_layer_input": shapes.get(f"{TABLE}.weight", (262144,))[0],
    }


def _sparsities(scale: Any, layers: int) -> list[float]:
    """The part of each layer's gate that does not count, of how many standard deviations the cutoff is above the
    mean."""
    if scale is None:
        return [SPARSITY if i < SPARSE_LAYERS else 0.0 for i in range(layers)]
    if not isinstance(scale, list) or len(scale) != layers or not all(isinstance(one, float) for one in scale):
        raise FormatError(f"gemma3n.{SCALE} is {shown(scale)}, {layers} numbers are needed: convert again")
    return [float(f"{NormalDist().cdf(one):.6g}") for one in scale]  # those that configurations say


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """UnsupportedError for a model that GGUF's readers would take for another."""
    streams, mlps = model.around, [layer.ffn for layer in model.layers]
    mixers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    ranks = {layer.norms.branch.rank for layer in model.layers if isinstance(layer.norms, LaurelNorms)}
    cutoffs = [mlp.cutoff for mlp in mlps if isinstance(mlp, GatedMLP)]
    usual = NormalDist().inv_cdf(SPARSITY)
    local = rope_parameters(ModelConfig(config, "config.json"), "sliding_attention")
    assert isinstance(streams, AltUp) and model.head
    needed = {
        f"{STREAMS} streams, of which the first is computed": (streams.number, streams.active) == (STREAMS, 0),
        f"a low-rank branch of {RANK} values": ranks == {RANK},
        f"a second embedding of {WIDTH} values for a layer": streams.embedding.width == WIDTH,
        "a second embedding of no more rows than there are tokens": streams.embedding.rows <= model.vocab_size,
        "MLPs of one width": len({mlp.gate.rows for mlp in mlps if isinstance(mlp, GatedMLP)}) == 1,
        f"a sparsity of {SPARSITY} in the first {SPARSE_LAYERS} layers alone": all(
            cutoff == (usual if i < SPARSE_LAYERS else None) for i, cutoff in enumerate(cutoffs)
        ),
        f"the keys of layers {OWN_KEYS - 2}, if local, and {OWN_KEYS - 1} in all from {OWN_KEYS} on": all(
            mixer.reads == (None if i < OWN_KEYS else OWN_KEYS - (2 if mixer.heads.sliding_window else 1))
            for i, mixer in enumerate(mixers)
        ),
        "local layers whose rotary embedding is not scaled": local.get("rope_type", "default") == "default"
        or "sliding_attention" not in (config.get("rope_parameters") or {}),
        f"logits held within {CAP}": model.head.cap == CAP,
    }
    if missing := [what for what, so in needed.items() if not so]:
        raise UnsupportedError(f"GGUF's gemma3n has {missing[0]}: this model cannot be exported")
    theta = config.get("rope_local_base_freq") or LOCAL_THETA
    if "sliding_attention" in (config.get("rope_parameters") or {}):
        theta = local.get("rope_theta", theta)
    return {
        "attention.sliding_window_pattern": [bool(mixer.heads.sliding_window) for mixer in mixers],
        "rope.freq_base_swa": float(theta),
        SCALE: [-math.inf if cutoff is None else cutoff for cutoff in cutoffs],
    }


def rows_added(model: Model | None) -> dict[str, int]:
    """Rows that tensors have more of in GGUF, where they stand for the first one."""
    streams = model.around if model else None
    if not isinstance(streams, AltUp) or model is None:
        return {}
    return {f"{TABLE}.weight": max(model.vocab_size - streams.embedding.rows, 0)}


def unread(model: Model | None) -> dict[str, tuple[int, ...]]:
    """Tensors that GGUF's readers ask for and never look at, of layers that see the keys and values of earlier ones."""
    found: dict[str, tuple[int, ...]] = {}
    if model is None or not isinstance(model.around, AltUp):
        return found
    for i, layer in enumerate(model.layers):
        if isinstance(layer.mixer, Attention) and layer.mixer.reads is not None:
            _, keys, values = layer.mixer.qkv
            found |= {f"blk.{i}.{one.name}.weight": (one.rows, one.columns) for one in (keys, values)}
            found[f"blk.{i}.attn_k_norm.weight"] = (layer.mixer.heads.head_dim,)
    return found
