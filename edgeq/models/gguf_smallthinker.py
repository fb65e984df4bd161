"""SmallThinker in GGUF, whose readers know from where layers are local which are rotated."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.feed_forward import MixtureOfExperts
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes, count_of
from edgeq.models.gguf_mixtures import SIGMOID
from edgeq.models.gguf_newer import PATTERN, SOFTMAX
from edgeq.models.mixers import Attention
from edgeq.ops import NO_ROPE

WINDOW = 4096  # which readers take, whatever the file says
EVERY = 4  # of so many layers the first is not rotated, where others are local, but in a model of just so many


def rotated_layers(layers: int, windows: bool) -> list[bool]:
    """Those that readers rotate; all where no layer is local."""
    return [not windows or layers == EVERY or i % EVERY != 0 for i in range(layers)]


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """What readers take where the file does not say it."""
    gating = values.get("expert_gating_func", SOFTMAX)
    if gating not in (SOFTMAX, SIGMOID):
        raise UnsupportedError(f"expert_gating_func {gating!r} is not supported: 1 and 2 are, softmax and sigmoids")
    if values.get("rope.freq_base_swa", values.get("rope.freq_base")) != values.get("rope.freq_base"):
        raise UnsupportedError("rope.freq_base_swa is not supported")
    layers, window = count_of(values.get("block_count")), count_of(values.get("attention.sliding_window"))
    given = values.get(PATTERN)
    every = EVERY if given is None else count_of(given)
    local = given if isinstance(given, list) else [not every or i % every != 0 for i in range(layers)]
    return {
        "moe_primary_router_apply_softmax": gating == SOFTMAX,
        "sliding_window_size": window or WINDOW,
        "sliding_window_layout": [int(bool(window and one)) for one in local[:layers]],
        "rope_layout": [int(here) for here in rotated_layers(layers, bool(window))],
    }


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read` reads it. UnsupportedError for layers that are rotated otherwise, or whose window is another."""
    local = [window is not None for window in model.windows]
    rotated = [isinstance(layer.mixer, Attention) and layer.mixer.rope != NO_ROPE for layer in model.layers]
    if rotated != rotated_layers(len(rotated), any(local)):
        raise UnsupportedError("a SmallThinker with other layers rotated than GGUF's readers take cannot be exported")
    if {*model.windows} - {None, WINDOW}:
        raise UnsupportedError(f"a SmallThinker whose window is not {WINDOW} cannot be exported")
    ffn = model.layers[0].ffn
    sigmoid = isinstance(ffn, MixtureOfExperts) and ffn.sigmoid
    windows = {"attention.sliding_window": WINDOW, PATTERN: local} if any(local) else {"attention.sliding_window": 0}
    return {"expert_gating_func": SIGMOID if sigmoid else SOFTMAX, **windows}


SMALLTHINKER = GgufArchitecture(
    "smallthinker",
    keys={
        "expert_count": "moe_num_primary_experts",
        "expert_used_count": "moe_num_active_primary_experts",
        "expert_feed_forward_length": "moe_ffn_hidden_size",
        "attention.sliding_window": "sliding_window_size",
    },
    read=read,
    write=write,
)
