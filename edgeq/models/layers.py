"""A layer: what mixes tokens, what sees each by itself, and where the norms stand between these and the residual
stream x."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from edgeq.models.feed_forward import FeedForward, MixtureOfExperts
from edgeq.models.laurel import Laurel
from edgeq.models.matrix import layer_name
from edgeq.models.mixers import Mixer
from edgeq.models.norms import NamedNorm, NoNorm, Norm, RMSNorm
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Norms(Protocol):
    """The norms of a layer, and so the order of all that it does."""

    def __iter__(self) -> Iterator[object]:
        """The norms, and what else there is to them."""

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        """Layer i on x."""


class Layer(NamedTuple):
    """One layer of a model."""

    norms: Norms
    mixer: Mixer
    ffn: FeedForward

    def tensors(self, t: Tensors) -> None:
        """Every tensor of the layer."""
        self.mixer.tensors(t)
        self.ffn.tensors(t)
        for norm in self.norms:
            if isinstance(norm, Norm | Laurel):
                norm.tensors(t)

    def graph(self, g: Graph, x: Value, i: int) -> Value:
        """x after the layer, which is number i."""
        return self.norms.graph(g, x, i, self.mixer, self.ffn)


class PreNorms(NamedTuple):
    """What reads x reads it normed; what is added is multiplied by `mixed` and `fed`, where these are given."""

    before_mixer: Norm | NoNorm
    before_ffn: Norm
    mixed: float | None = None
    fed: float | None = None

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        h = self.before_mixer.graph(g, x, layer_name(i))
        x = mixer.graph(g, h, i, x) if self.mixed is None else g.add(x, mixer.graph(g, h, i), self.mixed)
        h = self.before_ffn.graph(g, x, layer_name(i))
        return ffn.graph(g, h, i, x) if self.fed is None else g.add(x, ffn.graph(g, h, i), self.fed)


class RoutedFirst(NamedTuple):
    """As PreNorms, of experts that are chosen by x as it was before the layer."""

    before_mixer: Norm
    before_ffn: Norm

    @property
    def one_input(self) -> bool:
        """Whether experts and their router read the same."""
        return False

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        assert isinstance(ffn, MixtureOfExperts)
        scores, at = ffn.scores(g, x, i), layer_name(i)
        x = mixer.graph(g, self.before_mixer.graph(g, x, at), i, x)
        return ffn.graph(g, self.before_ffn.graph(g, x, at), i, x, scores)


class PostNorms(NamedTuple):
    """What is added to x is normed; what reads x reads it as it is."""

    after_mixer: RMSNorm
    after_ffn: RMSNorm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        x = self.after_mixer.graph(g, mixer.graph(g, x, i), layer_name(i), add_to=x)
        return self.after_ffn.graph(g, ffn.graph(g, x, i), layer_name(i), add_to=x)


class BothNorms(NamedTuple):
    """What reads x reads it normed, and what is added to it is normed again."""

    before_mixer: RMSNorm
    after_mixer: RMSNorm
    before_ffn: RMSNorm
    after_ffn: RMSNorm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        at = layer_name(i)
        mixed = mixer.graph(g, self.before_mixer.graph(g, x, at), i)
        x = self.after_mixer.graph(g, mixed, at, add_to=x)
        fed = ffn.graph(g, self.before_ffn.graph(g, x, at), i)
        return self.after_ffn.graph(g, fed, at, add_to=x)


class NormedSums(NamedTuple):
    """x itself is normed after each sum."""

    after_mixer: Norm
    after_ffn: Norm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        x = self.after_mixer.graph(g, mixer.graph(g, x, i, x), layer_name(i))
        return self.after_ffn.graph(g, ffn.graph(g, x, i, x), layer_name(i))


class NormedTwice(NamedTuple):
    """As NormedSums; x is added once more to what is normed after the mixer, and normed again."""

    after_mixer: Norm
    again: Norm
    after_ffn: Norm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        at = layer_name(i)
        mixed = self.after_mixer.graph(g, g.add(mixer.graph(g, x, i), x), at)
        x = self.again.graph(g, g.add(mixed, x), at)
        return self.after_ffn.graph(g, ffn.graph(g, x, i, x), at)


class Parallel(NamedTuple):
    """Mixer and feed-forward both read x as it was before the layer, through one norm, or through one each."""

    before_mixer: Norm
    before_ffn: Norm | None = None

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        h = to_ffn = self.before_mixer.graph(g, x, layer_name(i))
        if self.before_ffn:
            to_ffn = self.before_ffn.graph(g, x, layer_name(i))
        return ffn.graph(g, to_ffn, i, mixer.graph(g, h, i, x))


class Once(NamedTuple):
    """A layer of one part, the mixer's place, which reads x normed."""

    before: RMSNorm

    def graph(self, g: Graph, x: Value, i: int, mixer: Mixer, ffn: FeedForward) -> Value:
        return mixer.graph(g, self.before.graph(g, x, layer_name(i)), i, x)


class Nothing(NamedTuple):
    """In the place of what a layer does not have."""

    def tensors(self, t: Tensors) -> None:
        """None."""

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """What it would be added to."""
        return h if add_to is None else add_to


def post_norms(norm: Callable[[str, str], RMSNorm]) -> PostNorms:
    """Norms after both, which checkpoints call what OLMo 2's do."""
    return PostNorms(
        norm("post_attention_norm", "post_attention_layernorm"), norm("post_ffw_norm", "post_feedforward_layernorm")
    )


def pre_norms(norm: NamedNorm, mixed: float | None = None, fed: float | None = None) -> PreNorms:
    """Norms before both, which checkpoints call what Llama's do; `norm` makes one of its names here and there."""
    return PreNorms(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "post_attention_layernorm"), mixed, fed)
