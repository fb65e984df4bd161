"""What every architecture offers: names, shapes and the graph."""

from collections.abc import Mapping
from typing import Protocol

from edgeq.models.classifier import Classifier
from edgeq.models.dense import Dense
from edgeq.models.tensors import Tensor
from edgeq.ops import Graph, Heads, Value


class Architecture(Protocol):
    """A model family, configured."""

    @property
    def name(self) -> str:
        """Hugging Face's `model_type`."""

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""

    @property
    def layers_there(self) -> int:
        """How many layers the checkpoint has: some may be passed over."""

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""

    @property
    def max_position_embeddings(self) -> int:
        """How many positions the model was trained on."""

    @property
    def writes_text(self) -> bool:
        """Whether there is a head: otherwise the last layer's states are the result."""

    @property
    def token_types(self) -> int:
        """How many types of tokens are told apart; 0 if none are."""

    @property
    def classifier(self) -> Classifier | None:
        """What makes scores of a text's states, if the model is there for that."""

    @property
    def dense(self) -> tuple[Dense, ...]:
        """What follows the pooling where a text is embedded."""

    @property
    def heads(self) -> Heads:
        """The attention that most layers have."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor that the graph uses, by its name in the file."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the checkpoint's names in `tensors` begin with, and what they may begin with instead."""

    @property
    def experts_read(self) -> float:
        """The part of the experts' matrices, those of three dimensions, that one token reads."""

    @property
    def in_stages(self) -> bool:
        """Whether the layers can be run one by one."""

    def graph(self, g: Graph, stages: range | None = None) -> Value:
        """Describe the forward pass; the result is the logits.

        Of some `stages` only: 0 is the embedding, 1 to n are the layers, n + 1 is the head. Without the first the pass
        begins with rows that the caller gives, without the last it ends with what the next stage would read.
        """
