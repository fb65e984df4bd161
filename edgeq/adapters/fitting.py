"""Which of a model's matrices an adapter is added to, by their names in a file."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeq.adapters.adapter import Adapter, Pair
from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.gguf.row_order import halves, pieces_of, rotated_heads
from edgeq.models import Architecture
from edgeq.models.composition import Model
from edgeq.models.gguf_architectures import exported
from edgeq.models.gguf_hooks import IN_TURN_THERE, delta_shape, is_routed, mamba_of
from edgeq.models.gguf_places import Place, places
from edgeq.models.tensors import Part, also_called
from edgeq.ops import Graph
from edgeq.ops.matmul import Linear

EMBEDDING, HEAD = "token_embd.weight", "output.weight"


def fitted(adapter: Adapter, model: Architecture) -> dict[str, Pair]:
    """An adapter's pairs by the names of the file's matrices; where the head is the embedding, that stands for the
    head. A pair of a matrix that is several ones in the file becomes one for each, with some of its rows.

    Raises UnsupportedError for matrices that are in no linear layer, CheckpointError for an adapter that was made for
    another model.
    """
    net = delta_shape(model) if isinstance(model, Model) else None
    reordered = adapter.architecture in IN_TURN_THERE  # of value heads that share keys
    if net and net.heads != net.key_heads and net.in_turn != reordered:
        raise UnsupportedError(
            f"{adapter.weights}: GGUF has the model's value heads in another order than checkpoints have: take both "
            "from GGUF files, or none"
        )
    found = _from_gguf(adapter, model) if adapter.architecture else _from_checkpoint(adapter, model)
    for name, pair in found.items():
        needs, has = model.tensors[name].shape, (len(pair.b), pair.a.shape[1])
        if has != needs:
            raise CheckpointError(
                f"{adapter.weights}: adds to {name} as [{has[0]}, {has[1]}], the model's is {list(needs)}: "
                f"{_another(adapter)}"
            )
    return found


def linear_matrices(model: Architecture) -> set[str]:
    """The matrices of a model that its linear layers read."""
    graph = Graph({name: tensor.shape for name, tensor in model.tensors.items()})
    model.graph(graph)
    return {node.op.weight for node in graph.nodes if isinstance(node.op, Linear)}


def _from_checkpoint(adapter: Adapter, model: Architecture) -> dict[str, Pair]:
    known, derived = _sources(model), _derived(model)
    found: dict[str, Pair] = {}
    for name, pair in adapter.pairs.items():
        if name in derived:
            raise _of_heads(adapter, name, derived[name])
        if name not in known:
            raise _unknown(adapter, model, name)
        for own, parts in known[name]:
            part = parts[0]
            rows, columns = part.shape[::-1] if part.transposed else part.shape
            has = (len(pair.b), pair.a.shape[1])
            if has != (rows, columns):
                raise CheckpointError(
                    f"{adapter.weights}: adds to {name} as [{has[0]}, {has[1]}], the model's is [{rows}, {columns}]: "
                    f"{_another(adapter)}"
                )
            if own in found:
                raise CheckpointError(f"{adapter.weights}: has {name} twice: train or download the adapter again")
            found[own] = pair._replace(b=pair.b[rows_of(parts)])
    return found


def rows_of(parts: Sequence[Part]) -> npt.NDArray[np.intp]:
    """The numbers of the rows of parts of one tensor, one part after the other."""
    found = []
    for part in parts:
        run, within = np.divmod(np.arange(part.rows), part.run or part.rows)
        found.append(part.first + run * part.step + within)
    return np.concatenate(found)


def _sources(model: Architecture) -> dict[str, list[tuple[str, Sequence[Part]]]]:
    """What checkpoints may call matrices of linear layers -> those of the file that they are, and which rows of it."""
    found: dict[str, list[tuple[str, Sequence[Part]]]] = {}
    for name in sorted(linear_matrices(model)):
        tensor = model.tensors[name]
        ways = [tensor.instead] if name == EMBEDDING else [tensor.parts, tensor.instead]
        for parts in ways:
            for own in dict.fromkeys(part.source for part in parts):
                for source in dict.fromkeys((own, *also_called(own, model.prefixes))):
                    before = found.setdefault(source, [])
                    if name not in [known for known, _ in before]:  # both ways may have the same name
                        before.append((name, [part for part in parts if part.source == own]))
    return found


def _derived(model: Architecture) -> dict[str, str]:
    """What checkpoints may call matrices that the file has in another form -> one that is made of them."""
    found: dict[str, str] = {}
    for name, tensor in model.tensors.items():
        for part in tensor.parts:
            if part.turned is not None or part.channels > 1:
                found |= dict.fromkeys((part.source, *also_called(part.source, model.prefixes)), name)
    return found


def _of_heads(adapter: Adapter, name: str, own: str) -> UnsupportedError:
    """Why there is nothing to add to, though the model has it."""
    what = f"adds to {name[:120]}, of which the file has matrices of heads ({own}), to which nothing can be added"
    return UnsupportedError(f"{adapter.weights}: {what}: merge it with peft first")


def _from_gguf(adapter: Adapter, model: Architecture) -> dict[str, Pair]:
    recurrent = isinstance(model, Model) and mamba_of(model) is not None
    routed = isinstance(model, Model) and is_routed(model)
    name, entry = exported(model.name, adapter.weights, recurrent, routed=routed)
    if adapter.architecture != name:
        raise CheckpointError(
            f"{adapter.weights}: is for the architecture {adapter.architecture[:60]!r}, the model is a {name!r}: "
            f"{_another(adapter)}"
        )
    linear, heads, derived = linear_matrices(model), model.heads, _derived(model)
    known = {place.name: place for place in places(list(model.tensors), entry, entry.fused)}
    if EMBEDDING in linear:
        known[HEAD] = Place(HEAD, (EMBEDDING,))
        del known[EMBEDDING]
    found: dict[str, Pair] = {}
    for theirs, pair in adapter.pairs.items():
        place = known.get(theirs)
        parts = place.parts if place else ()
        if parts and model.tensors[parts[0]].parts[0].source in derived:
            raise _of_heads(adapter, theirs, parts[0])
        if place is None or not linear.issuperset(parts):
            raise _unknown(adapter, model, theirs)
        rows = [model.tensors[own].shape[0] for own in parts]
        if sum(rows) != len(pair.b):
            raise CheckpointError(
                f"{adapter.weights}: adds {len(pair.b)} rows to {theirs}, the model's has {sum(rows)}: "
                f"{_another(adapter)}"
            )
        pieces = pieces_of(place, model) if place.woven else 1
        each = pair.b.reshape(pieces, len(pair.b) // pieces, -1)
        split = np.split(each, np.cumsum(rows)[:-1] // pieces, axis=1)
        for own, b in zip(parts, (part.reshape(-1, part.shape[-1]) for part in split), strict=True):
            count = rotated_heads(own, entry, heads.num_attention_heads, heads.num_key_value_heads)
            found[own] = pair._replace(b=halves(b, count) if count else b)
    return found


def _unknown(adapter: Adapter, model: Architecture, name: str) -> UnsupportedError | CheckpointError:
    """Why there is nothing to add to."""
    where = f"{adapter.weights}: adds to {name[:120]}"
    if "exps" in name or "experts" in name:
        return UnsupportedError(f"{where}, matrices of experts, which cannot be done: merge it with peft first")
    if "embd" in name or "embed" in name or ".wte." in name:
        return UnsupportedError(f"{where}, an embedding, which cannot be done: merge it with peft first")
    return CheckpointError(f"{where}, which the model ({model.name}, {_layers(model)}) has not: {_another(adapter)}")


def _layers(model: Architecture) -> str:
    return f"{model.num_hidden_layers} layers"


def _another(adapter: Adapter) -> str:
    made = f" ({adapter.base[:80]})" if adapter.base else ""
    return f"the adapter was made for another model{made}, give that one"
