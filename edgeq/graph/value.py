"""What operations read and write."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A row of `width` f32 per token, symbolically; of tokens whose logits are asked for only, if `outputs`."""

    index: int
    width: int
    outputs: bool = False
