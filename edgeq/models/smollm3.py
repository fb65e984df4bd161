"""SmolLM3: Llama that leaves out the rotary embedding in every fourth layer (arXiv:2501.18795)."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import config as read
from edgeq.models import llama
from edgeq.ops import NO_ROPE, Rope


class Model(llama.Model):
    """SmolLM3."""

    name = "smollm3"
    tied = True
    theta = 2000000.0

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """Off unless `use_sliding_window`; then the layers without rotary embedding are local."""
        layers, every = self.num_hidden_layers, read.integer(config, "no_rope_layer_interval", source, 4)
        rotated = config.get("no_rope_layers") or [(i + 1) % every != 0 for i in range(layers)]
        if not isinstance(rotated, list) or len(rotated) < layers:
            raise CheckpointError(f"{source}: no_rope_layers is {read.shown(rotated)}, a list of {layers} is needed")
        self.rotated = [bool(here) for here in rotated]
        if not config.get("use_sliding_window", False) or config.get("sliding_window") is None:
            return [None] * layers
        return read.windows(config, source, layers, [not here for here in self.rotated])

    def layer_rope(self, i: int) -> Rope:
        """None where the configuration's list, named after the others, has a 0."""
        return self.rope if self.rotated[i] else NO_ROPE
