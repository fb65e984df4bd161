"""`general.sampling.*`: how a model's authors would have its tokens drawn, to `generation_config.json` and back."""

import json
from collections.abc import Mapping
from typing import Any

from edgeq.decode.sampler_steps import options
from edgeq.decode.sampling_defaults import FILE, sampling_defaults
from edgeq.models.gguf_rope import shortest
from edgeq.text.assets import json_asset

_PREFIX = "general.sampling."
PLAIN = (bool, int, float, str)


def sampling_assets(metadata: Mapping[str, Any], assets: Mapping[str, bytes]) -> dict[str, bytes]:
    """`generation_config.json` with what the metadata says of sampling, if it says anything."""
    found = {config: metadata[key] for key, (_, config) in _keys().items() if type(metadata.get(key)) in PLAIN}
    values = {key: shortest(value) if isinstance(value, float) else value for key, value in found.items()}
    said = sampling_defaults({FILE: json.dumps(values).encode()})
    kept = {config: said[name] for name, config in _keys().values() if name in said}
    return {FILE: json.dumps({**json_asset(assets, FILE), **kept}).encode()} if kept else {}


def sampling_metadata(assets: Mapping[str, bytes]) -> dict[str, Any]:
    """The inverse: key -> value."""
    said = sampling_defaults(assets)
    return {key: said[name] for key, (name, _) in _keys().items() if name in said}


def _keys() -> dict[str, tuple[str, str]]:
    """GGUF's key -> (the option's name, its key in generation_config.json)."""
    return {
        _PREFIX + option.gguf: (name, option.config)
        for name, option in options().items()
        if option.gguf is not None and option.config is not None
    }
