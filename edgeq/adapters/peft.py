"""Adapters as PEFT saves them: a folder with adapter_config.json and adapter_model.safetensors (or .bin).

Source of what the keys mean: peft's LoraConfig; the scale is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
`fan_in_fan_out` says that the base model keeps matrices as [inputs, outputs], which its architecture says as well:
factors are always [rank, inputs] and [outputs, rank].
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeq.adapters.adapter import Adapter, Pair, checked_pair
from edgeq.adapters.given import CONFIG, WEIGHTS
from edgeq.adapters.patterns import Patterns
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.folder import index_file, read_json
from edgeq.errors import CheckpointError, NotFoundError, UnsupportedError

# Keys of a configuration that ask for more than b a is, and what that is called
REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules that were trained whole (modules_to_save)",
    "trainable_token_indices": "trained embeddings of tokens (trainable_token_indices)",
    "target_parameters": "parameters of experts (target_parameters)",
    "layer_replication": "layers that are repeated (layer_replication)",
    "alora_invocation_tokens": "aLoRA, which begins at certain tokens",
    "lora_bias": "a trained bias (lora_bias)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow, which chooses among adapters",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")  # others begin with changing the base model
BASE = ".base_layer.weight"  # what PEFT saves of a head beside its factors: the base model's own weights
_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")
_OTHERS = {  # what the name of a tensor has in it -> what that is called
    "lora_embedding_": "trained embeddings",
    "lora_magnitude_vector": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "ia3_": "IA3",
    "modules_to_save": "modules that were trained whole",
    ".bias": "trained biases",
}


def read_peft(folder: Path) -> Adapter:
    """The adapter in a folder; matrices are called as in the checkpoint, `model.layers.0.self_attn.q_proj.weight`.

    Raises NotFoundError for a folder without one, UnsupportedError for what is no plain LoRA, CheckpointError for what
    is damaged.
    """
    place, weights = folder / CONFIG, next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if not place.is_file():
        raise NotFoundError(f"{folder}: no {CONFIG}: an adapter is a folder that PEFT has saved, or a GGUF file")
    config = read_json(place)
    _refuse(config, str(place))
    if weights is None:
        raise NotFoundError(f"{folder}: no {WEIGHTS[0]}: download the adapter again")
    factors = _factors(weights)
    scale = _Scale(config, str(place))
    files = Files(index_file(weights))
    try:
        pairs: dict[str, Pair] = {}
        for module, names in factors.items():
            if missing := {"A", "B"} - names.keys():
                (here,) = names.values()
                raise CheckpointError(
                    f"{weights}: has {here!r} without its lora_{missing.pop()}: download the adapter again"
                )
            a, b = (files.float_rows(names[one], 0, files.tensors[names[one]].shape[0]) for one in "AB")
            pair = checked_pair(a, b, 1.0, str(weights), (names["A"], names["B"]))
            pairs[f"{module}.weight"] = pair._replace(factor=scale.of(module, len(a), str(weights)))
    finally:
        files.close()
    return Adapter(str(weights), pairs, base=str(config.get("base_model_name_or_path") or ""))


def _refuse(config: Mapping[str, Any], place: str) -> None:
    """UnsupportedError for a configuration that is not LoRA's, or asks for more."""
    kind = str(config.get("peft_type", "none"))[:40]
    if kind != "LORA":
        raise UnsupportedError(f"{place}: is an adapter of type {kind}: LORA can be applied; merge it with peft first")
    for key, what in REFUSED.items():
        if config.get(key):
            raise UnsupportedError(f"{place}: has {what}, which cannot be applied: merge it with peft first")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise UnsupportedError(
            f"{place}: init_lora_weights is {str(start)[:40]}, which has changed the base model: save the adapter as a "
            "plain LoRA (path_initial_model_for_weight_conversion)"
        )


def _factors(weights: Path) -> dict[str, dict[str, str]]:
    """Module -> "A" and "B" -> the name of the tensor. UnsupportedError for tensors that are something else."""
    found: dict[str, dict[str, str]] = {}
    for name in index_file(weights):
        if name.endswith(BASE):
            continue
        match = _FACTOR.fullmatch(name)
        if match is None:
            what = next((what for part, what in _OTHERS.items() if part in name), "no LoRA of a linear layer")
            raise UnsupportedError(f"{weights}: tensor {name!r} ({what}) cannot be applied: merge it with peft first")
        found.setdefault(match[1], {})[match[2]] = name
    if not found:
        raise CheckpointError(f"{weights}: has no tensors: train or download the adapter again")
    return found


class _Scale:
    """What the pair of a module is multiplied by, as a configuration says."""

    def __init__(self, config: Mapping[str, Any], place: str) -> None:
        self._place = place
        self._rank, self._alpha = self._number(config, "r"), self._number(config, "lora_alpha")
        self._ranks, self._alphas = (self._patterns(config, key) for key in ("rank_pattern", "alpha_pattern"))
        self._rooted = bool(config.get("use_rslora"))

    def of(self, module: str, rank: int, weights: str) -> float:
        """That of `module`, whose matrices have this rank. CheckpointError where it should be another one."""
        expected = self._chosen(self._ranks, module, self._rank)
        if rank != expected:
            raise CheckpointError(
                f"{weights}: {module} has rank {rank}, {CONFIG} says {expected:g}: the two belong to different adapters"
            )
        return self._chosen(self._alphas, module, self._alpha) / (math.sqrt(rank) if self._rooted else rank)

    def _chosen(self, patterns: Patterns, module: str, otherwise: float) -> float:
        try:
            return patterns.of(module, otherwise)
        except ValueError as error:
            raise CheckpointError(f"{self._place}: {error}: merge the adapter with peft first") from None

    def _number(self, config: Mapping[str, Any], key: str) -> float:
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            raise CheckpointError(f"{self._place}: {key} is {str(value)[:40]}, a number is needed: download it again")
        return float(value)

    def _patterns(self, config: Mapping[str, Any], key: str) -> Patterns:
        found = config.get(key) or {}
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{self._place}: {key} is no object: download the adapter again")
        try:
            return Patterns({pattern: self._number(found, pattern) for pattern in found})
        except ValueError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self._place}: {key}: {error}: train or download the adapter again") from None
