"""How a model's authors would have its tokens drawn: `generation_config.json`, which an import from GGUF writes too."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeq.text.assets import json_asset

FILE = "generation_config.json"
_MOST = 1 << 31  # and NaN and infinity are no numbers to work with either
# Keys, which are the file's and SamplerParams' alike, and what each may be
_VALID: dict[str, Callable[[float], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_k": lambda value: value >= 0 and value == int(value),
    "top_p": lambda value: 0 < value <= 1,
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: value > 0,
}


def sampling_defaults(assets: Mapping[str, bytes]) -> dict[str, float | int]:
    """The model's own temperature, top_k, top_p, min_p and repetition_penalty: those it says, and that can work.

    The values count whether or not the file says `do_sample`, which most leave out, and whose absence means greedy to
    transformers: who writes a temperature wants it used, as vLLM and llama.cpp do. A file that says `do_sample: false`
    asks for greedy decoding, temperature 0, where only the penalty still matters. A top_k of -1 is that of vLLM, all
    tokens. Raises TokenizerError for a file that is no JSON object.
    """
    config = json_asset(assets, FILE)
    found = {key: value for key in _VALID if (value := _number(key, config.get(key))) is not None}
    if config.get("do_sample") is False:
        return {"temperature": 0.0} | {key: value for key, value in found.items() if key == "repetition_penalty"}
    return found


def _number(key: str, value: Any) -> float | int | None:
    """A value that can work, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        return None
    if key == "top_k" and value == -1:
        return 0
    if not _VALID[key](value):
        return None
    return int(value) if key == "top_k" else float(value)
