"""RWKV-7 in GGUF."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes
from edgeq.models.rwkv7_mixer import MIXED, TimeMix

OF_HEADS = 64e-5  # what readers add to the variance of what a head gives, whatever the file says of other norms
SHIFTS = 2  # of a layer: both of its parts mix rows


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """UnsupportedError for another number of shifts."""
    if values.get("token_shift_count", SHIFTS) != SHIFTS:
        raise UnsupportedError(f"token_shift_count is {values['token_shift_count']!r}, supported is {SHIFTS}")
    return {}


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """UnsupportedError for a model that readers would compute otherwise."""
    mixer = model.layers[0].mixer
    assert isinstance(mixer, TimeMix), "all layers are such"
    if abs(mixer.eps - OF_HEADS) > 1e-3 * OF_HEADS:
        raise UnsupportedError(f"GGUF's readers add {OF_HEADS} to the variance of a head, this model {mixer.eps}")
    return {}


def unread(model: Model) -> dict[str, tuple[int, ...]]:
    """Tensors that readers ask for and never look at: those of the first layer's values, as large as those of its
    rates."""
    mixer = model.layers[0].mixer
    if not isinstance(mixer, TimeMix):
        return {}
    rate = mixer.low_rank["a"]
    shapes = {"0": (mixer.n,), "1": (rate.rank, mixer.n), "2": (mixer.n, rate.rank)}
    return {f"blk.0.time_mix_v{part}.weight": shape for part, shape in shapes.items()}


RWKV7 = GgufArchitecture(
    "rwkv7",
    layer_norm="norm_eps",
    attends=False,
    keys={
        "feed_forward_length": "intermediate_size",
        "wkv.head_size": "head_dim",
        "attention.decay_lora_rank": "decay_low_rank_dim",
        "attention.iclr_lora_rank": "a_low_rank_dim",
        "attention.value_residual_mix_lora_rank": "v_low_rank_dim",
        "attention.gate_lora_rank": "gate_low_rank_dim",
    },
    fixed={"hidden_act": "sqrelu", "norm_first": True, "norm_bias": True},
    read=read,
    write=write,
    folded={"time_mix_lerp_fused": (len(MIXED), 1, 1), "channel_mix_lerp_k": ()},
)
