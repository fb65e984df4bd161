"""A model: an embedding, a list of layers, a last norm, a head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from edgeq.errors import UnsupportedError
from edgeq.models.altup import AltUp
from edgeq.models.classifier import Classifier
from edgeq.models.config import Config
from edgeq.models.dense import Dense
from edgeq.models.dimensions import Dimensions
from edgeq.models.latent_attention import LatentAttention
from edgeq.models.layers import Layer
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.mixers import Attention, NoAttention
from edgeq.models.norms import NamedNorm, NoNorm, Norm, Projected
from edgeq.models.per_layer import LayerEnd
from edgeq.models.rows_in import PatchesIn, RowsIn
from edgeq.models.rwkv7_mixer import FirstValues
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Heads, Rope, Value


class Embedding(NamedTuple):
    """Rows of `matrix` for the tokens, multiplied by `factor` if there is one; then those of `positions` are added, and
    those of `types`, one for each of two texts; `norm` norms the sum, `projection` takes it to the hidden size. Where
    rows are `given` in place of tokens, as images are, these are the sum."""

    matrix: Matrix
    factor: float | None = None
    positions: Matrix | None = None
    types: Matrix | None = None
    norm: Norm | None = None
    projection: Matrix | None = None
    given: bool = False

    def tensors(self, t: Tensors) -> None:
        """The tables, the norm, the projection."""
        for part in (self.matrix, self.positions, self.types, self.norm, self.projection):
            if part:
                part.tensors(t)

    def graph(self, g: Graph) -> Value:
        """Token ids to the first layer's input."""
        x = g.embedding(f"{self.matrix.name}.weight")
        if self.factor is not None:
            x = g.scale(x, self.factor)
        if self.positions:
            x = g.add_positions(x, f"{self.positions.name}.weight")
        if self.types:
            add = g.add_types if self.types.rows > 1 else g.add_row
            x = add(x, f"{self.types.name}.weight")
        if self.given:
            x = g.given_rows(x)
        x = self.norm.graph(g, x) if self.norm else x
        return self.projection.graph(g, x) if self.projection else x


class Transform(NamedTuple):
    """What there may be between the last norm and a head: a matrix, an activation, another norm."""

    matrix: Matrix
    activation: str
    norm: Norm

    def tensors(self, t: Tensors) -> None:
        """The matrix, the norm's."""
        self.matrix.tensors(t)
        self.norm.tensors(t)

    def graph(self, g: Graph, x: Value) -> Value:
        """Of x."""
        return self.norm.graph(g, g.activation(self.matrix.graph(g, x), self.activation))


class Head(NamedTuple):
    """The last norm and `transform`, where there are such, and `matrix`, which may be the embedding's, to logits: these
    times `factor`, then within `cap`."""

    norm: Norm | NoNorm
    matrix: Matrix
    factor: float | None = None
    cap: float = 0.0
    transform: Transform | None = None

    def tensors(self, t: Tensors) -> None:
        """The norm's, what follows it, and the matrix."""
        for part in (self.norm, self.transform, self.matrix):
            if part:
                part.tensors(t)

    def graph(self, g: Graph, x: Value) -> Value:
        """What the last layer gives to logits, where these are asked for."""
        x = self.norm.graph(g, g.outputs(x))
        logits = self.matrix.graph(g, self.transform.graph(g, x) if self.transform else x)
        if self.factor is not None:
            logits = g.scale(logits, self.factor)
        return g.softcap(logits, self.cap) if self.cap else logits


@dataclass(frozen=True)
class Model:
    """An architecture, configured: see Architecture.

    attention: what most layers have, without a window
    head:      without one the last layer's states are the result
    layers_in: what the checkpoint's names of a layer's tensors begin with, `{}` standing for its number
    passed:    numbers of the checkpoint's layers that are passed over
    settings:  what GGUF says as well and config.json may leave out, by its keys there
    bare:      the checkpoint has no head, and what stands for it here is never computed
    around:    what there is around the layers
    classifier: what makes scores of a text's states, of a checkpoint that is there for that
    dense:     what follows the pooling, of one that embeds texts
    last:      norms the last layer's states, where there is no head
    instead:   the same model, as other checkpoints name its tensors
    """

    name: str
    size: Dimensions
    attention: Attention | LatentAttention | NoAttention
    embedding: Embedding | RowsIn | PatchesIn
    layers: Sequence[Layer]
    head: Head | None
    prefixes: tuple[str, ...] = ("model.", "")  # without it where only the decoder was saved
    layers_in: str = "model.layers.{}."
    settings: Mapping[str, float] = field(default_factory=dict)
    bare: bool = False
    around: LayerEnd | AltUp | FirstValues | None = None
    classifier: Classifier | None = None
    dense: tuple[Dense, ...] = ()
    last: Norm | Projected | None = None
    instead: "Model | None" = None
    passed: tuple[int, ...] = ()

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @property
    def layers_there(self) -> int:
        """How many layers the checkpoint has."""
        return len(self.layers) + len(self.passed)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return self.size.vocab_size

    @property
    def max_position_embeddings(self) -> int:
        """How many positions the model was trained on."""
        return self.size.max_position_embeddings

    @property
    def writes_text(self) -> bool:
        """Whether there is a head."""
        return self.head is not None and not self.bare

    @property
    def token_types(self) -> int:
        """How many types of tokens are told apart; 0 if none are."""
        types = self.embedding.types
        return types.rows if types and types.rows > 1 else 0

    @property
    def heads(self) -> Heads:
        """The shape of an attention."""
        return self.attention.heads

    @property
    def rope(self) -> Rope:
        """The rotary embedding that most layers have."""
        return self.attention.rope

    @property
    def experts_read(self) -> float:
        """The part of the experts' matrices that one token reads."""
        parts = (part for layer in self.layers for part in (layer.mixer, layer.ffn))
        return min((getattr(part, "experts_read", 1.0) for part in parts), default=1.0)

    @property
    def norm_eps(self) -> float:
        """What the norms add to a variance."""
        norm = self.head.norm if self.head else self.embedding.norm
        assert norm is not None and not isinstance(norm, NoNorm), "a model without a head norms its embeddings"
        return norm.eps

    @property
    def in_stages(self) -> bool:
        """Whether a layer needs no more than what the one before it gives, and its experts what their router reads."""
        alone = all(layer.mixer.reads is None for layer in self.layers if isinstance(layer.mixer, Attention))
        parts = (part for layer in self.layers for part in (layer.norms, layer.mixer, layer.ffn))
        routed = all(getattr(part, "one_input", True) for part in parts)
        return alone and routed and not (self.around is not None and self.around.carries)

    @property
    def windows(self) -> list[int | None]:
        """The positions that each layer's attention looks back over, None for all."""
        mixers = (layer.mixer for layer in self.layers)
        return [mixer.heads.sliding_window if isinstance(mixer, Attention) else None for mixer in mixers]

    @cached_property
    def tensors(self) -> Tensors:
        """Every tensor that the graph uses."""
        found = Tensors()
        self.embedding.tensors(found)
        if self.around is not None:
            self.around.tensors(found)
        numbers = [number for number in range(self.layers_there) if number not in self.passed]
        for i, layer in enumerate(self.layers):
            own = found.within(layer_name(i), self.layers_in.format(numbers[i]))
            layer.tensors(own)
            if self.around is not None:
                self.around.layer_tensors(own)
        if self.head:
            self.head.tensors(found)
        if self.last:
            self.last.tensors(found)
        if self.classifier:
            self.classifier.tensors(found)
        for module in self.dense:
            module.tensors(found)
        if self.instead:
            found.update({name: found[name]._replace(instead=one.parts) for name, one in self.instead.tensors.items()})
        return found

    def graph(self, g: Graph, stages: range | None = None) -> Value:
        """The forward pass, token ids to logits, or `stages` of it: the embedding, each layer, the head."""
        last = len(self.layers) + 1
        run = range(last + 1) if stages is None else stages
        if stages is not None and not self.in_stages:
            what = (
                "layers read what other layers keep or give, an embedding of their own, or experts what no router reads"
            )
            raise UnsupportedError(f"{self.name}: {what}, and cannot be run one by one: quantize without calibration")
        x = self.embedding.graph(g) if 0 in run else g.rows(self.size.hidden_size)
        layers = [(i, layer) for i, layer in enumerate(self.layers) if i + 1 in run]
        if self.around is not None:
            x = self.around.through(g, x, layers)
        else:
            for i, layer in layers:
                x = layer.graph(g, x, i)
        if last in run and self.last:
            x = self.last.graph(g, x)
        return self.head.graph(g, x) if self.head and last in run else x


def embedding_and_head(
    size: Dimensions, tied: bool, embedding: str = "model.embed_tokens", head: str = "lm_head", bias: bool = False
) -> tuple[Matrix, Matrix]:
    """The two matrices, or one twice if they are `tied`: the checkpoint may store that under either name. The `bias` is
    the head's alone."""
    n, count = size.hidden_size, size.vocab_size
    if tied:
        both = Matrix("token_embd", embedding, count, n, instead=head)
        return both, both._replace(bias=bias, biased=f"{head}.bias" if bias else "")
    return Matrix("token_embd", embedding, count, n), Matrix("output", head, count, n, bias)


def decoder(
    name: str,
    config: Config,
    size: Dimensions,
    attention: Attention | LatentAttention,
    layers: Sequence[Layer],
    norm: NamedNorm,
    *,
    last: str = "model.norm",
    tied: bool = False,
    settings: Mapping[str, float] | None = None,
) -> Model:
    """A model whose checkpoints call embedding and head what Llama's do. `norm` makes a norm of its names here and
    there, `last` is that of the last one there; `tied` is what leaving out tie_word_embeddings means."""
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", tied))
    return Model(
        name,
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", last), head),
        settings=settings or {},
    )
