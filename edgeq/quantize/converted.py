"""What a conversion did, tensor by tensor and as a whole."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan

from edgeq.container.written import Sizes
from edgeq.quantize import kept
from edgeq.quantize.kept import Kept
from edgeq.quantize.loss_probe import Loss

# What config.json or the embedding tells as well: rotary tables, causal masks, numbers of positions, a tied head
_DERIVED = re.compile(
    r"(.+\.)?(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias|position_ids|lm_head\.weight|embed_out\.weight)"
)


@dataclass(frozen=True)
class Converted:
    """A tensor as it was written.

    fallback: why its type is not the recipe's
    kept:     what became of the codes of a tensor that the checkpoint stores quantized
    error:    RMS error relative to the RMS of the weights, of a sample, where those are not kept exactly
    """

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    fallback: str | None = None
    kept: Kept | None = None
    error: float | None = None


@dataclass(frozen=True)
class Report(Sizes[Converted]):
    """What a conversion did. `nbytes` is the file's; `seconds` the time it took; `skipped` names the checkpoint's
    tensors that the model does not need; `notes` has a line for each contradiction within the checkpoint, which says
    what was taken, and what else there is to say. With a calibration, `loss` is what quantizing has cost on a part of
    its text that was not quantized for, and `predicted` the divergence of a plan, NaN without one; where
    it was measured without a calibration and is much, `holds` is the smallest recipe that holds."""

    path: str
    recipe: str
    architecture: str
    nbytes: int
    seconds: float
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    loss: Loss | None = None
    predicted: float = nan
    holds: str = ""

    @property
    def fallbacks(self) -> list[Converted]:
        """The tensors whose type is not the recipe's."""
        return [t for t in self.tensors if t.fallback]

    @property
    def quantized(self) -> list[str]:
        """One line for each fate of the tensors that the checkpoint stores quantized."""
        return kept.summary((t.kept, t.type, t.error) for t in self.tensors if t.kept)

    @property
    def unused(self) -> list[str]:
        """The skipped tensors that say something of their own: not rotary tables, nor a tied head."""
        return own(self.skipped)


def own(skipped: Iterable[str]) -> list[str]:
    """Those of a checkpoint's skipped tensors that say something that nothing else does."""
    return [name for name in skipped if not _DERIVED.fullmatch(name)]
