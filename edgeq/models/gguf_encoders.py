"""Encoders as GGUF writes them, and the heads of those that score texts."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.classifier import CLASSES, WITHOUT_DENSE
from edgeq.models.composition import Model
from edgeq.models.config import Config as Checked
from edgeq.models.dense import KEY
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes, gemma
from edgeq.models.gguf_keys import WINDOW
from edgeq.models.gguf_rope import shortest
from edgeq.models.jina_bert_v2 import QK_NORM
from edgeq.models.modernbert import LOCAL_THETA
from edgeq.models.rope_scaling import rope_parameters

RANK = 4  # GGUF's number of the pooling that is followed by a classifier
POOLINGS = {1: "mean", 2: "cls"}  # and of what a classifier pools by
# Of GGUF's architectures that have a classifier, the activation within it
ACTIVATIONS = {"bert": "tanh", "modern-bert": "gelu"}
DENSE = (2, 3)  # the places, among sentence-transformers' modules, of the matrices that GGUF has names for
DECIDES = "qwen3"  # a reranker of this type is the model that writes text, whose answers are compared


def read_bert(values: Mapping[str, Any], shapes: Shapes) -> Config:
    types = shapes.get("token_types.weight", (2, 0))
    return {"type_vocab_size": types[0] if types else 1}


def read_jina(values: Mapping[str, Any], shapes: Shapes) -> Config:
    return read_bert(values, shapes) | ({QK_NORM: True} if "blk.0.attn_q_norm.weight" in shapes else {})


def write_bert(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention.causal": False}


def read_modernbert(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """A layer of so many is global, the first one being; or each layer is said to be local or not."""
    pattern, theta = values.get("attention.sliding_window_pattern", 3), values.get("rope.freq_base", 10000.0)
    kinds = {}
    if isinstance(pattern, list):
        kinds = {"layer_types": ["sliding_attention" if local else "full_attention" for local in pattern]}
    return {
        "hidden_activation": str(values.get("hidden_activation", "gelu")),
        "global_attn_every_n_layers": 3 if kinds else pattern,
        "local_rope_theta": shortest(values.get("rope.freq_base_swa", theta)),
        **kinds,
    }


def write_modernbert(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    windows = model.windows
    every = next((i for i in range(1, len(windows)) if windows[i] is None), len(windows))
    if any((window is None) != (i % every == 0) for i, window in enumerate(windows)):
        raise UnsupportedError("the order of its local and global layers cannot be exported")
    parameters = rope_parameters(Checked(config, "config.json"), "sliding_attention")
    theta = parameters.get("rope_theta", config.get("local_rope_theta", LOCAL_THETA))
    if parameters.get("rope_type", "default") != "default":
        raise UnsupportedError("a rope scaling of its local layers cannot be exported")
    return {
        "attention.causal": False,
        "attention.sliding_window_pattern": every,
        "rope.freq_base_swa": float(theta),
        "hidden_activation": str(config.get("hidden_activation", "gelu")),
    }


def read_classifier(name: str, model_type: str, values: Mapping[str, Any], shapes: Shapes, source: str) -> Config:
    """config.json's keys of a model that scores texts; none of another. Raises UnsupportedError for an architecture
    whose heads are not known, FormatError for labels that are none."""
    ranks = values.get("pooling_type") == RANK
    if (not ranks and "cls.output.weight" not in shapes) or model_type == DECIDES:
        return {}
    if name not in ACTIVATIONS:
        what = f"scores pairs of texts (pooling_type 4), which is not supported of {name}"
        raise UnsupportedError(f"{source}: {what}: take a model that embeds texts")
    count = shapes.get("cls.output.weight", (0,))[0]
    labels = values.get("classifier.output_labels") or [f"LABEL_{i}" for i in range(count)]
    if not count or not isinstance(labels, list) or len(labels) != count:
        raise FormatError(f"{source}: has no cls.output.weight of a row for each label: convert the model again")
    pooling = POOLINGS.get(values.get("classifier.pooling_type", 1))
    if pooling is None:
        raise UnsupportedError(f"{source}: classifier.pooling_type is neither mean nor cls, which is not supported")
    return {
        "architectures": [{"bert": "Bert", "modern-bert": "ModernBert"}[name] + CLASSES],
        "id2label": {str(i): str(label) for i, label in enumerate(labels)},
        **({} if "cls.weight" in shapes else {WITHOUT_DENSE: True}),
        **({"classifier_pooling": pooling, "classifier_bias": "cls.bias" in shapes} if name == "modern-bert" else {}),
    }


def write_classifier(name: str, model: Model) -> dict[str, Any]:
    """GGUF's keys of a model's classifier, none of a model without. UnsupportedError for one that GGUF's readers would
    compute otherwise."""
    head = model.classifier
    if head is None:
        return {}
    if (head.activation and head.activation != ACTIVATIONS.get(name)) or name not in ACTIVATIONS:
        raise UnsupportedError(f"GGUF's {name} has no classifier as this model's")
    pooling = {} if name == "bert" else {"classifier.pooling_type": 1 if head.pooling == "mean" else 2}
    return {"pooling_type": RANK, "classifier.output_labels": list(head.labels), **pooling}


def read_gemma(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """The matrices behind the pooling, if the file has them."""
    found = []
    for place in DENSE:
        if len(shape := shapes.get(f"dense_{place}.weight", ())) == 2:
            sizes = {"out_features": shape[0], "in_features": shape[1], "bias": False}
            found.append({**sizes, "activation_function": "Identity", "place": place, "folder": f"{place}_Dense"})
    return {KEY: found} if found else {}


def write_gemma(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention.causal": False}


def write_dense(name: str, model: Model) -> dict[str, Any]:
    """GGUF's keys of what follows the pooling. UnsupportedError for what it has no place for."""
    values: dict[str, Any] = {}
    for module, place in zip(model.dense, (*DENSE, *(0 for _ in model.dense)), strict=False):
        matrix = module.matrix
        if (
            name != "gemma-embedding"
            or matrix.name != f"dense_{place}"
            or matrix.bias
            or module.activation != "Identity"
        ):
            raise UnsupportedError(
                f"GGUF's {name} has no place for the module {matrix.source.removesuffix('.linear')!r}"
            )
        values |= {f"dense_{place}_feat_in": matrix.columns, f"dense_{place}_feat_out": matrix.rows}
    return values


ENCODERS = {
    "bert": GgufArchitecture(
        "bert",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu"},
        read=read_bert,
        write=write_bert,
    ),
    "modern-bert": GgufArchitecture(
        "modernbert",
        layer_norm="norm_eps",
        keys={"attention.sliding_window": "local_attention"},
        fixed={"attention_bias": False, "mlp_bias": False, "norm_bias": False},
        read=read_modernbert,
        write=write_modernbert,
        fused=("attn_qkv", "ffn_up"),
    ),
    "nomic-bert": GgufArchitecture(
        "nomic_bert",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "silu"},
        read=read_bert,
        write=write_bert,
        fused=("attn_qkv",),
    ),
    "jina-bert-v2": GgufArchitecture(
        "jina_bert_v2",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu", "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
        read=read_jina,
        write=write_bert,
        fused=("ffn_up",),
    ),
    "jina-bert-v3": GgufArchitecture(
        "jina_embeddings_v3",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu"},
        read=read_bert,
        write=write_bert,
        fused=("attn_qkv",),
    ),
    "eurobert": GgufArchitecture(
        "eurobert",
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        write=write_bert,
    ),
    "gemma-embedding": GgufArchitecture(
        "gemma3_text",
        keys=WINDOW,
        fixed={"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        assumed={"use_bidirectional_attention": True},
        derived=gemma(6, 62),
        read=read_gemma,
        write=write_gemma,
    ),
}
