"""How GGUF writes each architecture: one row per `general.architecture`, each kind's in a file of its own.

Source: the keys and tensors that llama.cpp's loaders ask for, and what its converter does to a checkpoint's tensors.
"""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import gguf_dense, gguf_latents, gguf_mixtures, gguf_newer, gguf_recurrent, gguf_selective
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_encoders import ENCODERS
from edgeq.models.gguf_older import OLDER
from edgeq.models.gguf_rwkv7 import RWKV7
from edgeq.models.gguf_smallthinker import SMALLTHINKER
from edgeq.models.wrapped import WRAPPED

ARCHITECTURES = {
    **gguf_dense.DENSE,
    **OLDER,
    **gguf_mixtures.MIXTURES,
    **gguf_newer.NEWER,
    SMALLTHINKER.model_type: SMALLTHINKER,
    RWKV7.model_type: RWKV7,
    **gguf_recurrent.RECURRENT,
    **gguf_latents.LATENTS,
    **ENCODERS,
}
# Here -> GGUF: Mistral is a Llama there, whose window is not written
EXPORTED = {entry.model_type: name for name, entry in ARCHITECTURES.items()} | {
    "gemma3_text": "gemma3",
    "nemotron_h": "nemotron_h",
    "falcon_mamba": "mamba",
    "mistral": "llama",
    "mixtral": "llama",
    "internlm3": "llama",
    "iquestcoder": "llama",
    "bailing_moe": "bailingmoe2",
    "sarvam_moe": "bailingmoe2",
    "olmo3": "olmo2",
    "granitemoehybrid": "granite",
    "granitemoeshared": "granitemoe",
    "granite": "granite",
    "minicpm": "granite",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "camembert": "bert",
    **dict.fromkeys(gguf_latents.BY_TYPE, "deepseek2"),
}


def known(metadata: Mapping[str, Any], source: str) -> tuple[str, GgufArchitecture]:
    """`general.architecture` and its entry. UnsupportedError, with the known ones, for another."""
    if metadata.get("general.type") == "imatrix":
        raise UnsupportedError(f"{source}: is a calibration, not a model: `edgeq show` tells of which, give that one")
    if metadata.get("general.type") == "adapter":
        raise UnsupportedError(f"{source}: is an adapter, not a model: give the model, and this with --lora")
    name = metadata.get("general.architecture")
    if name == "clip":
        raise UnsupportedError(f"{source}: is what a model sees with: give the model, and this with --mmproj")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{source}: architecture {str(name)[:60]!r} cannot be imported; known are {', '.join(ARCHITECTURES)}"
        )
    if name == "llama" and metadata.get("llama.expert_count"):
        return name, gguf_mixtures.MIXTRAL
    if name == "olmo2" and metadata.get("olmo2.attention.sliding_window"):
        return name, gguf_dense.OLMO3
    if name == "mamba" and metadata.get(f"mamba.{gguf_selective.NORMED}"):
        return name, gguf_recurrent.FALCON_MAMBA
    if name == "deepseek2":
        return name, gguf_latents.entry_of(metadata)
    if name == "granitehybrid" and metadata.get("granitehybrid.expert_count"):
        return name, gguf_recurrent.GRANITE4_MOE
    if name == "granitemoe" and metadata.get("granitemoe.expert_shared_feed_forward_length"):
        return name, gguf_recurrent.GRANITE4_MOE
    if name == "granite" and metadata.get("granite.rope.scaling.finetuned") is False:
        return name, ARCHITECTURES["granitehybrid"]
    return name, ARCHITECTURES[name]


def exported(
    model_type: str, source: str, recurrent: bool = False, both_ways: bool = False, routed: bool = False
) -> tuple[str, GgufArchitecture]:
    """The `general.architecture` that holds a model of this type, with recurrent layers or without, and its entry;
    `both_ways`: its tokens see what follows them; `routed`: it has experts. UnsupportedError if none does."""
    model_type = WRAPPED.get(model_type, model_type)  # of files that name the larger model
    if model_type == "gemma3_text" and both_ways:
        return "gemma-embedding", ARCHITECTURES["gemma-embedding"]
    if model_type not in EXPORTED:
        raise UnsupportedError(f"{source}: {model_type} cannot be exported; supported are {', '.join(EXPORTED)}")
    name = EXPORTED[model_type]
    if model_type == "nemotron_h" and routed:
        return "nemotron_h_moe", ARCHITECTURES["nemotron_h_moe"]
    if model_type == "granitemoeshared":
        return name, gguf_mixtures.GRANITE_SHARED
    if model_type == "granitemoehybrid" and routed:
        return ("granitehybrid" if recurrent else "granitemoe"), gguf_recurrent.GRANITE4_MOE
    if model_type == "granitemoehybrid" and recurrent:
        name = "granitehybrid"
    apart = {
        "mixtral": gguf_mixtures.MIXTRAL,
        "olmo3": gguf_dense.OLMO3,
        "granitemoehybrid": ARCHITECTURES["granitehybrid"],
    }
    apart |= {"falcon_mamba": gguf_recurrent.FALCON_MAMBA} | gguf_latents.BY_TYPE
    return name, apart.get(model_type, ARCHITECTURES[name])
