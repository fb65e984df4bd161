"""RoBERTa: BERT whose positions are counted from after the padding token's number (arXiv:1907.11692)."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError
from edgeq.models import bert
from edgeq.models import config as read
from edgeq.models.tensors import Fused, Tensors


class Model(bert.Model):
    """RoBERTa."""

    name = "roberta"
    prefixes = ("roberta.", "")

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """The embeddings of positions before the first are not needed."""
        super().read_more(config, source)
        padding = config.get("pad_token_id", 1)
        rows = self.max_position_embeddings
        if not isinstance(padding, int) or not 0 <= padding < rows - 1:
            raise CheckpointError(
                f"{source}: pad_token_id is {read.shown(padding)}, a number below {rows - 1} is needed"
            )
        self.positions = Fused(rows, first=padding + 1)
        self.max_position_embeddings = rows - padding - 1

    def list_tensors(self, t: Tensors) -> None:
        """As BERT's; position embeddings are a part of the checkpoint's."""
        super().list_tensors(t)
        rows, n = self.max_position_embeddings, self.hidden_size
        t.slice("position_embd", f"{self.prefixes[0]}embeddings.position_embeddings", rows, n, self.positions)
