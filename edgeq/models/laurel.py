"""A layer whose mixer has a low-rank branch beside it: LAUREL (arXiv:2411.07501), as Gemma 3n has it."""

from typing import NamedTuple

from edgeq.models.feed_forward import FeedForward
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.mixers import Mixer
from edgeq.models.norms import RMSNorm
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Laurel(NamedTuple):
    """Through `rank` values back to `hidden` ones, which are normed."""

    hidden: int
    rank: int
    eps: float

    @property
    def left(self) -> Matrix:
        """To the few values."""
        return Matrix("laurel_l", "laurel.linear_left", self.rank, self.hidden)

    @property
    def right(self) -> Matrix:
        """Back from them."""
        return Matrix("laurel_r", "laurel.linear_right", self.hidden, self.rank)

    @property
    def norm(self) -> RMSNorm:
        """Of what comes back."""
        return RMSNorm("laurel_post_norm", "laurel.post_laurel_norm", self.hidden, self.eps)

    def tensors(self, t: Tensors) -> None:
        """The two matrices, the norm."""
        for part in (self.left, self.right, self.norm):
            part.tensors(t)

    def graph(self, g: Graph, h: Value, at: str, add_to: Value) -> Value:
        """Of h, added to `add_to`; `at` is what the layer's names begin with."""
        return self.norm.graph(g, self.right.graph(g, self.left.graph(g, h, at), at), at, add_to=add_to)


class LaurelNorms(NamedTuple):
    """BothNorms with the branch: x, what the mixer gives of x normed, that itself, and what `branch` makes of it are
    added and divided by the root of 2. x stays as it is, the result is a new value."""

    before_mixer: RMSNorm
    after_mixer: RMSNorm
    before_ffn: RMSNorm
    after_ffn: RMSNorm
    branch: Laurel

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        at = layer_name(i)
        h = self.before_mixer.graph(g, x, at)
        mixed = self.after_mixer.graph(g, mixer.graph(g, h, i), at)
        mixed = self.branch.graph(g, h, at, add_to=g.add(g.add(mixed, x), h))
        mixed = g.scale(mixed, 2.0**-0.5)
        fed = ffn.graph(g, self.before_ffn.graph(g, mixed, at), i)
        return self.after_ffn.graph(g, fed, at, add_to=mixed)
