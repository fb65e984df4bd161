"""What the makers of a file have to say of it."""

from dataclasses import dataclass
from math import prod
from typing import Generic, Protocol, TypeVar


class Written(Protocol):
    """A tensor in the file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...


Tensor = TypeVar("Tensor", bound=Written)


@dataclass(frozen=True, kw_only=True)
class Sizes(Generic[Tensor]):
    """The base of reports: a file's tensors, and the sizes that follow from them."""

    tensors: list[Tensor]

    @property
    def weights(self) -> int:
        """Parameters of the model."""
        return sum(prod(t.shape) for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors over parameters."""
        return 8 * sum(t.nbytes for t in self.tensors) / self.weights
