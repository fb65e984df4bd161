"""`general.sampling.*`: how a model's authors would have its tokens drawn, to `generation_config.json` and back."""

import json
from collections.abc import Mapping
from typing import Any

from edgeq.models.gguf_rope import shortest
from edgeq.text.assets import json_asset
from edgeq.text.sampling_defaults import FILE, sampling_defaults

_PREFIX = "general.sampling."
# GGUF's key -> generation_config.json's
KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def sampling_assets(metadata: Mapping[str, Any], assets: Mapping[str, bytes]) -> dict[str, bytes]:
    """`generation_config.json` with what the metadata says of sampling, if it says anything."""
    found = {own: metadata[_PREFIX + key] for key, own in KEYS.items() if _PREFIX + key in metadata}
    values = {key: shortest(value) if isinstance(value, float) else value for key, value in found.items()}
    said = sampling_defaults({FILE: json.dumps(values).encode()})
    return {FILE: json.dumps({**json_asset(assets, FILE), **said}).encode()} if said else {}


def sampling_metadata(assets: Mapping[str, bytes]) -> dict[str, Any]:
    """The inverse: key -> value."""
    said = sampling_defaults(assets)
    return {_PREFIX + key: said[own] for key, own in KEYS.items() if own in said}
