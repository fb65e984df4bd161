"""GGUF's metadata as Hugging Face's `config.json`, and back; the differences between architectures are a table,
`gguf_architectures.py`, rotary embeddings have `gguf_rope.py`."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import architecture as architecture_of
from edgeq.models import gguf_gemma4
from edgeq.models.composition import Model
from edgeq.models.config import Config, model_type_of, shown
from edgeq.models.dimensions import MOST_LAYERS
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_architectures import exported, known
from edgeq.models.gguf_encoders import read_classifier, write_classifier, write_dense
from edgeq.models.gguf_hooks import Shapes, is_routed, mamba_of
from edgeq.models.gguf_places import FUSED
from edgeq.models.gguf_rope import (
    LARGEST_F32,
    ROPE_FACTORS,
    Vector,
    check_factors,
    number,
    read_rope,
    rotated,
    scaling_of,
    write_rope,
)
from edgeq.models.gguf_selective import note_of
from edgeq.models.mixers import query_width
from edgeq.models.wrapped import of_text

# GGUF's key after the architecture's name -> config.json's key
KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
WITHOUT_ATTENTION = ("context_length", "embedding_length", "block_count")  # of KEYS, those that are left
REQUIRED = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count")
EPSILON = {False: "attention.layer_norm_rms_epsilon", True: "attention.layer_norm_epsilon"}  # whether LayerNorm
# Keys of the tokenizer that config.json repeats
TOKENS = {"tokenizer.ggml.bos_token_id": "bos_token_id", "tokenizer.ggml.eos_token_id": "eos_token_id"}
ALONE = "xielu."  # what keys without the architecture's name begin with
OPTIONAL = {"attention.sliding_window", "final_logit_softcapping"}  # of an architecture's further keys
# Whose readers ask for a head beside the embedding
UNTIED = {"gptneox", "nemotron", "olmo2", "phi2", "rwkv7", "stablelm"}
UNTIED |= {"bailingmoe2", "dots1", "exaone-moe", "gpt-oss", "mellum", "minimax-m2", "olmoe", "qwen2moe"}


def read_config(metadata: Mapping[str, Any], shapes: Shapes, vector: Vector, source: str) -> dict[str, Any]:
    """`config.json` of a GGUF model.

    `shapes` are those of its tensors, `vector(name)` the values of one. Raises UnsupportedError for what cannot run
    here, FormatError for metadata that is missing or of another kind.
    """
    name, entry = known(metadata, source)
    values = {key[len(name) + 1 :]: _plain(value) for key, value in metadata.items() if key.startswith(f"{name}.")}
    values |= {key: _plain(value) for key, value in metadata.items() if key.startswith(ALONE)}
    epsilon = EPSILON[bool(entry.layer_norm)]
    config: dict[str, Any] = {"model_type": entry.model_type, **entry.fixed, **entry.assumed}
    known_keys = KEYS if entry.attends else {suffix: KEYS[suffix] for suffix in WITHOUT_ATTENTION}
    for suffix, key in {**known_keys, epsilon: entry.layer_norm or "rms_norm_eps", **entry.keys}.items():
        value = values.get(suffix)
        needed = (suffix in REQUIRED or suffix == epsilon or suffix in entry.keys) and suffix not in OPTIONAL
        if suffix == "feed_forward_length" and "expert_feed_forward_length" in entry.keys:
            needed = False  # of a model that has experts in all layers
        if value is None and needed:
            raise FormatError(f"{source}: has no {name}.{suffix}: convert the model again")
        if isinstance(value, list) and suffix == "attention.head_count_kv" and entry.read:
            # the hook reads what the layers have
            value = max((heads for heads in value if isinstance(heads, int)), default=0)
        if isinstance(value, list) and value and suffix in entry.by_layer:
            value = value[0]
        if value is not None:
            config[key] = number(value, f"{name}.{suffix}", source)
    for suffix in ("expert_count", "attention.sliding_window"):
        if values.get(suffix) and suffix not in entry.keys and not entry.own_rope:
            raise UnsupportedError(f"{source}: {name}.{suffix} is not supported: take another model")
    if config.get("sliding_window") == 0:
        config["sliding_window"] = None
    embedding = shapes.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise FormatError(f"{source}: has no matrix token_embd.weight: this is no whole model")
    if entry.attends:
        if min(config["num_attention_heads"], config["hidden_size"]) < 1:
            raise FormatError(f"{source}: {name}.attention.head_count must be positive: convert the model again")
        # What leaving these out means to GGUF's readers, whatever it means in the architecture's config.json
        config.setdefault("num_key_value_heads", config["num_attention_heads"])
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        config.setdefault("rope_theta", 10000.0)
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise FormatError(f"{source}: {name}.block_count is {layers}: convert the model again")
    if entry.attends and not config["rope_theta"] > 0:
        raise FormatError(f"{source}: {name}.rope.freq_base must be positive: convert the model again")
    values["block_count"] = layers
    config["vocab_size"] = embedding[0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config |= {key: _has(tensor, shapes) for key, tensor in entry.biases.items()}
    config |= {key: number(metadata[own], own, source) for own, key in TOKENS.items() if own in metadata}
    config |= entry.derived(config) if entry.derived else {}
    try:
        config |= entry.read(values, shapes) if entry.read else {}
        if entry.own_rope:
            gguf_gemma4.read_rope(config, values, vector(ROPE_FACTORS) if ROPE_FACTORS in shapes else [1.0])
    except (FormatError, UnsupportedError) as error:
        raise type(error)(f"{source}: {error}") from None
    if entry.attends and not entry.own_rope:
        read_rope(config, values, f"{name}.rope", shapes, vector, source)
    config |= read_classifier(name, entry.model_type, values, shapes, source)
    if (config.get("rope_scaling") or {}).get("rope_type") == "yarn":
        config["rope_scaling"] |= entry.yarn
    if entry.interleaved and "partial_rotary_factor" in config:
        raise UnsupportedError(f"{source}: a part of each head is rotated, which is not supported for {name}")
    return {entry.names.get(key, key): value for key, value in config.items()}


def _plain(value: Any) -> Any:
    """An array of a number for each layer as a list."""
    return value.tolist() if isinstance(value, array) and len(value) <= MOST_LAYERS else value


def _has(tensor: str, shapes: Shapes) -> bool:
    """Whether there is this tensor, by itself or in one that holds several."""
    found = [tensor]
    for whole, parts in FUSED:
        found += [tensor.replace(f".{part}.", f".{whole}.") for part in parts if f".{part}." in tensor]
    return any(name in shapes for name in found)


def check_activation(model: Model, entry: GgufArchitecture, name: str, values: Mapping[str, Any]) -> None:
    """UnsupportedError for MLPs of another activation than GGUF's readers take, where neither a key says which it is
    nor `fixed` which it must be."""
    keys = {"hidden_act", "hidden_activation"}
    if "hidden_activation" in values or keys & entry.fixed.keys() or not model.heads.causal:
        return
    usual = "gelu_tanh" if entry.model_type.startswith("gemma") else "silu"
    other = {layer.ffn.activation for layer in model.layers if isinstance(layer.ffn, GatedMLP)} - {usual}
    if other:
        raise UnsupportedError(f"its MLPs have {', '.join(sorted(other))}, GGUF's {name} has {usual}")


def write_config(config: Mapping[str, Any], source: str, notes: list[str]) -> dict[str, Any]:
    """GGUF's metadata of a `config.json`; `notes` gets what it cannot say.

    Raises UnsupportedError for a configuration that GGUF's architecture does not have.
    """
    config = of_text(config, source)
    exported(str(model_type_of(config)), source)  # before anything is said of the configuration
    model = architecture_of(config, source)
    recurrent = isinstance(model, Model) and mamba_of(model) is not None
    routed = isinstance(model, Model) and is_routed(model)
    name, entry = exported(str(model_type_of(config)), source, recurrent, not model.heads.causal, routed)
    if not isinstance(model, Model):
        raise UnsupportedError(f"{source}: {name} cannot be exported")
    usual = {theirs: own for own, theirs in entry.names.items()}
    standard = {usual.get(key, key): value for key, value in config.items()}
    expected = dict(entry.fixed) | (entry.derived(standard) if entry.derived else {})
    for key, value in expected.items():
        if key == "query_pre_attn_scalar" and entry.scaled:
            continue
        if config.get(key, value) != value:
            raise UnsupportedError(f"{source}: {key} is {str(config[key])[:40]}, GGUF's {name} has {value}")
    values = _shape(model, entry) | _further(config, model, entry, name, source)
    try:
        values |= entry.write(model, config) if entry.write else {}
        if entry.own_rope:
            gguf_gemma4.write_rope(values, model, config)
        values |= write_classifier(name, model) | write_dense(name, model)
        check_activation(model, entry, name, values)
        notes += note_of(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"{source}: {error}") from None
    if entry.square and query_width(model.heads) != model.size.hidden_size:
        wide = f"heads are {query_width(model.heads)} wide, the hidden size is {model.size.hidden_size}"
        raise UnsupportedError(f"{source}: {wide}: GGUF's {name} has the same for both")
    if name in UNTIED and "output.weight" not in model.tensors:
        raise UnsupportedError(f"{source}: its head is the embedding, and readers of GGUF's {name} ask for one apart")
    if entry.interleaved and rotated(model) not in (0, model.heads.head_dim):
        raise UnsupportedError(f"{source}: a part of each head is rotated, which GGUF's {name} cannot say")
    scaling = scaling_of(config)
    whole = scaling.get("truncate", True) == entry.yarn.get("truncate", True)
    if scaling.get("rope_type", scaling.get("type")) == "yarn" and not whole:
        raise UnsupportedError(f"{source}: a yarn scaling that is not truncated cannot be exported")
    theta = standard.get("rope_theta") or config.get("rotary_emb_base") or model.settings.get("rope_theta", 10000.0)
    if not entry.own_rope:
        check_factors(name, config, source)
        write_rope(values, model, config, Config({"rope_theta": theta}, source).number("rope_theta"), source)
    windows = [window for window in model.windows if window]
    if windows and (entry.model_type == "phi3" or "attention.sliding_window" not in entry.keys):
        window = min(windows)
        if window < model.max_position_embeddings:
            notes.append(f"GGUF has no sliding window for this architecture: the context is its {window} positions")
            values["context_length"] = window
    for key, value in values.items():
        if not _holds(value):
            raise UnsupportedError(f"{source}: GGUF cannot hold {shown(value)} as {name}.{key}")
    return {key if key.startswith(ALONE) else f"{name}.{key}": value for key, value in values.items()}


def _holds(value: Any) -> bool:
    """Whether GGUF has a type for a value, or for the elements of a list."""
    if isinstance(value, list):
        return len({type(one) for one in value}) == 1 and all(map(_holds, value))
    if type(value) is float:
        return bool(abs(value) <= LARGEST_F32) or value == -math.inf  # of Gemma 3n's layers without a cutoff
    return type(value) in (bool, str) or (type(value) is int and 0 <= value < 1 << 31)


def scores_factor(model: Model, entry: GgufArchitecture) -> float:
    """What the scores of GGUF's readers lack: to be had of the norm of queries that `entry` names."""
    if not entry.scaled or entry.derived is None or model.heads.scale is None:
        return 1.0
    shape = {"hidden_size": model.size.hidden_size, "num_attention_heads": model.heads.num_attention_heads}
    shape |= {"num_hidden_layers": model.num_hidden_layers, "head_dim": model.heads.head_dim}
    return float(model.heads.scale * entry.derived(shape)["query_pre_attn_scalar"] ** 0.5)


def _shape(model: Model, entry: GgufArchitecture) -> dict[str, Any]:
    """What every architecture has; GGUF's readers ask for sizes of attention and MLPs where there are none, too."""
    heads = model.heads
    every = {
        "context_length": model.max_position_embeddings,
        "embedding_length": model.size.hidden_size,
        "block_count": model.num_hidden_layers,
        EPSILON[bool(entry.layer_norm)]: model.norm_eps,
        "vocab_size": model.vocab_size,
    }
    if not entry.attends:
        return every | {"feed_forward_length": 0, "attention.head_count": 0}
    return every | {
        "feed_forward_length": model.size.intermediate_size,
        "attention.head_count": heads.num_attention_heads,
        "attention.head_count_kv": heads.num_key_value_heads,
        "attention.key_length": heads.head_dim,
        "attention.value_length": heads.head_dim,
        **({"rope.dimension_count": rotated(model)} if rotated(model) else {}),
    }


def _further(
    config: Mapping[str, Any], model: Model, entry: GgufArchitecture, name: str, source: str
) -> dict[str, Any]:
    """The architecture's own keys."""
    values = {}
    for suffix, key in entry.keys.items():
        value = config[key] if config.get(key) is not None else model.settings.get(key)
        if value is not None:
            values[suffix] = value
        elif suffix == "attention.sliding_window":
            values[suffix] = 0
        elif suffix not in OPTIONAL:
            raise UnsupportedError(f"{source}: its config.json does not say {key}, which GGUF's {name} needs")
    return values
