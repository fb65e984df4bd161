"""Architectures, one file each, named by Hugging Face's `model_type`. They describe; `runtime` runs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import mllama
from edgeq.models.architecture import Architecture
from edgeq.models.classifier import is_classifier, read_classifier
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import BARE, Config, model_type_of, tied
from edgeq.models.dense import read_dense
from edgeq.models.image_tower import FAMILIES, Images
from edgeq.models.left_out import LEFT_OUT
from edgeq.models.mixers import Attention
from edgeq.models.wrapped import PREFIXES, WRAPPED, text_config

__all__ = ["SUPPORTED", "Architecture", "Images", "architecture", "images"]

SUPPORTED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gemma3n_text",
    "phi3",
    "smollm3",
    "olmo2",
    "granite",
    "stablelm",
    "starcoder2",
    "phi",
    "gpt2",
    "gpt_neox",
    "falcon",
    "bitnet",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "granitemoe",
    "lfm2",
    "ernie4_5",
    "gpt_oss",
    "cohere",
    "cohere2",
    "glm",
    "glm4",
    "exaone4",
    "olmo3",
    "granitemoehybrid",
    "granite_swa",
    "granitemoe_swa",
    "mellum",
    "seed_oss",
    "nemotron",
    "arcee",
    "helium",
    "internlm3",
    "hunyuan_v1_dense",
    "nanochat",
    "apertus",
    "minicpm",
    "ernie4_5_moe",
    "lfm2_moe",
    "glm4_moe",
    "bailing_moe_v2",
    "bailing_moe",
    "dots1",
    "solar_open",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe_lite",
    "youtu",
    "minicpm3",
    "afmoe",
    "gpt_bigcode",
    "gptj",
    "opt",
    "bloom",
    "mpt",
    "phimoe",
    "exaone",
    "olmo",
    "granitemoeshared",
    "ministral3",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_next",
    "falcon_h1",
    "nemotron_h",
    "mamba",
    "falcon_mamba",
    "mamba2",
    "jamba",
    "bamba",
    "ministral",
    "cwm",
    "vaultgemma",
    "lfm3",
    "olmo_hybrid",
    "hunyuan_v1_moe",
    "minimax_m2",
    "exaone_moe",
    "flex_olmo",
    "cohere2_moe",
    "gpt_neo",
    "codegen",
    "biogpt",
    "llama4_text",
    "iquestcoder",
    "hyperclovax",
    "persimmon",
    "zamba2",
    "recurrent_gemma",
    "sarvam_moe",
    "sarvam_mla",
    "openai-gpt",
    "kimi_linear",
    "hy_v3",
    "jais2",
    "smallthinker",
    "rwkv7",
    "modernbert-decoder",
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "modernbert",
    "nomic_bert",
    "camembert",
    "electra",
    "mpnet",
    "deberta-v2",
    "jina_bert_v2",
    "embedding_gemma2_text",
    "eurobert",
    "gte",
    "jina_embeddings_v3",
    "ultrabert",
    *WRAPPED,
)


def architecture(config: Mapping[str, Any], source: str = "the checkpoint's config.json") -> Architecture:
    """The architecture that a Hugging Face `config.json` describes.

    Raises UnsupportedError, naming `source` and what is supported, for an unknown `model_type` or one whose
    configuration asks for something that this version does not compute.
    """
    if is_classifier(config):  # in place of a head that writes text, if there was one
        model = _composed(Config(tied(config, True), source))
        classifier = read_classifier(Config(config, source), model.name, model.size.hidden_size)
        return replace(model, bare=True, classifier=classifier)
    model = _composed(Config(config, source))
    dense = read_dense(Config(config, source), model.size.hidden_size)
    return replace(model, dense=dense) if dense else model


def images(config: Mapping[str, Any], source: str = "the checkpoint's config.json") -> Images | None:
    """What a model that `config.json` describes sees with; None for one that does not, or whose images are not read.
    Raises as `architecture`."""
    found = Config(config, source)
    family = _family(found)
    if family is None:
        return None
    read: Callable[[Config, int], Images] = family.read_images
    return read(found, _composed(found).size.hidden_size)


def _family(config: Config) -> ModuleType | None:
    """The file that says how images are read of a model that sees."""
    name = FAMILIES.get(str(config.get("model_type")))
    return None if name is None else import_module(f"edgeq.models.{name}")


def _with_images(model: Model, whole: Callable[[bool], int]) -> Model:
    """A text model in whose texts rows of images stand; `whole` gives what Heads has as `whole_images`, where a layer
    has a window, and where it has none."""
    assert isinstance(model.embedding, Embedding)
    layers = [
        layer._replace(mixer=layer.mixer.seeing(whole(layer.mixer.heads.sliding_window is not None)))
        if isinstance(layer.mixer, Attention)
        else layer
        for layer in model.layers
    ]
    most = max(whole(True), whole(False))
    own = model.attention.seeing(most) if isinstance(model.attention, Attention) else model.attention
    return replace(model, embedding=model.embedding._replace(given=True), layers=layers, attention=own)


def _composed(config: Config) -> Model:
    """Without a head that scores texts."""
    model_type = model_type_of(config.values)
    if model_type not in SUPPORTED:
        raise UnsupportedError(
            f"{config.source}: model_type {model_type!r} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    if model_type in WRAPPED:
        text = text_config(config)
        model = replace(_composed(text), prefixes=PREFIXES, bare=bool(config.get(BARE)))
        if model_type == "mllama":
            model = mllama.language_model(model, text)
        family = _family(config)
        return model if family is None else _with_images(model, partial(family.whole_images, config))
    module = import_module(f"edgeq.models.{model_type.replace('-', '_')}")
    compose: Callable[[Config], Model] = module.compose
    model = compose(config.usually(**LEFT_OUT.get(model_type, {})))
    return replace(model, bare=True) if config.get(BARE) else model
