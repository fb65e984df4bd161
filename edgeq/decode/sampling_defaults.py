"""How a model's authors would have its tokens drawn: `generation_config.json`, which an import from GGUF writes too."""

from collections.abc import Mapping
from typing import Any

from edgeq.decode import sampler_steps
from edgeq.decode.option import Option
from edgeq.text.assets import json_asset

FILE = "generation_config.json"
_MOST = 1 << 31  # and NaN and infinity are no numbers to work with either


def sampling_defaults(assets: Mapping[str, bytes]) -> dict[str, float | int]:
    """The model's own values of the options that have a key in the file: those it says, and that can work.

    The values count whether or not the file says `do_sample`, which most leave out, and whose absence means greedy to
    transformers: who writes a temperature wants it used, as vLLM and llama.cpp do. A file that says `do_sample: false`
    asks for greedy decoding, temperature 0, where only what changes logits still matters. Raises TokenizerError for a
    file that is no JSON object.
    """
    config = json_asset(assets, FILE)
    found = {}
    for name, option in sampler_steps.options().items():
        if option.config is not None and (value := _number(option, config.get(option.config))) is not None:
            found[name] = value
    if config.get("do_sample") is False:
        processors = [step for step in sampler_steps.STEPS if issubclass(step, sampler_steps.Processor)]
        kept = {option.name for step in processors for option in step.options()}
        return {"temperature": 0.0} | {name: value for name, value in found.items() if name in kept}
    return found


def _number(option: Option[Any], value: Any) -> float | int | None:
    """A value that can work, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        return None
    meant = option.means.get(value, value)
    if meant is None or not option.holds(meant) or meant != option.kind(meant):
        return None
    number: float | int = option.kind(meant)
    return number
