"""Passes over the operations of a graph: each takes a list of them and gives another, or lays one out.

`states` leaves out the head, `from_rows` begins with rows in place of token ids, `taps` keeps what matrices read,
`up_to_taps` leaves out what they do not need, `adapted` adds what adapters add to matrices' products, `pack_tokens`
packs what matrices whose rows have one scale read, `fuse_packing` decides who packs activations, `place` gives every
value memory and every operation its steps.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Node, Op
from edgeq.graph.value import Value
from edgeq.ops.copy_rows import Outputs
from edgeq.ops.embedding import Embedding
from edgeq.ops.input_rows import InputRows
from edgeq.ops.matmul import Linear
from edgeq.ops.pack import Pack
from edgeq.ops.pack_tokens import PackTokens
from edgeq.ops.tap import ADDED_TO, Tap

LORA_A, LORA_B = ".lora_a", ".lora_b"  # after a matrix' name: an adapter's matrices, [rank, columns], [rows, rank]


def states(nodes: Sequence[Node], result: Value) -> tuple[list[Node], Value]:
    """Without the head: the result is what that would read, the last norm's, for every token. `result` itself for a
    graph that has no head."""
    at = next((i for i, node in enumerate(nodes) if isinstance(node.op, Outputs)), None)
    if at is None:
        return list(nodes), result
    head = next(i for i in range(at, len(nodes)) if isinstance(nodes[i].op, Linear))
    body, now = list(nodes[:at]), {nodes[at].output: nodes[at].op.reads[0]}
    for node in nodes[at + 1 : head]:
        op = _on(node.op, now)
        output = op.changes or replace(node.output, outputs=False)
        now[node.output] = output
        body.append(Node(op, output))
    return body, body[-1].output if head > at + 1 else nodes[at].op.reads[0]


def _on(op: Op, now: Mapping[Value, Value]) -> Op:
    """The operation on the values that stand for its own."""
    changed = {name: now.get(value, value) for name, value in vars(op).items() if isinstance(value, Value)}
    return replace(op, **changed)


def from_rows(nodes: Sequence[Node]) -> list[Node]:
    """With rows that a caller gives (`Plan.rows`) in place of the embeddings of token ids."""
    return [
        Node(InputRows(node.output.width), node.output) if isinstance(node.op, Embedding) else node for node in nodes
    ]


def taps(nodes: Sequence[Node], names: Collection[str]) -> tuple[list[Node], list[Value]]:
    """With copies of the f32 input of the matrices `names` (`Plan.taps`), one for all that read the same, and the
    values that hold them. A name that ends in ADDED_TO stands for what the result of that matrix is added to. Nothing
    else changes by a bit. KeyError for a name that is no matrix of a `linear`, or of one that adds to nothing."""
    number = 1 + max(node.output.index for node in nodes)
    result: list[Node] = []
    copies: dict[int, int] = {}  # where in the result, by index of what is copied, until that changes
    kept: list[Value] = []
    for node in nodes:
        for name, x in _tappable(node):
            if name not in names:
                continue
            if x.index not in copies:
                kept.append(Value(number + len(kept), x.width, x.outputs))
                copies[x.index] = len(result)
                result.append(Node(Tap(x, ()), kept[-1]))
            copy = result[copies[x.index]]
            assert isinstance(copy.op, Tap)
            result[copies[x.index]] = Node(Tap(x, (*copy.op.names, name)), copy.output)
        result.append(node)
        copies.pop(node.output.index, None)
    if missing := set(names) - {name for node in result if isinstance(node.op, Tap) for name in node.op.names}:
        raise KeyError(min(missing))
    return result, kept


def _tappable(node: Node) -> Iterator[tuple[str, Value]]:
    """What can be tapped before an operation, by name."""
    if isinstance(node.op, Linear):
        yield node.op.weight, node.op.x
        if node.op.add_to is not None:
            yield f"{node.op.weight}{ADDED_TO}", node.op.add_to


def up_to_taps(nodes: Sequence[Node]) -> tuple[list[Node], Value]:
    """What comes before the last tap, which is the result."""
    last = max(i for i, node in enumerate(nodes) if isinstance(node.op, Tap))
    return list(nodes[: last + 1]), nodes[last].output


def adapted(nodes: Sequence[Node], ranks: Mapping[str, int]) -> list[Node]:
    """With b (a x) added to the results of the matrices named, which have such a pair beside them, of that rank.

    a x is computed beside the matrix' own product, and b times it added as late as may be: steps that wait for one
    another come together then, as those of queries, keys and values.
    """
    number = 1 + max(node.output.index for node in nodes)
    result: list[Node] = []
    waiting: list[Node] = []
    for node in nodes:
        if {value.index for value in node.values} & {late.output.index for late in waiting}:
            result += waiting
            waiting = []
        if isinstance(node.op, Linear) and node.op.weight in ranks:
            name, x = node.op.weight, node.op.x
            inner = Value(number, ranks[name], x.outputs)
            number += 1
            result.append(Node(Linear(x, f"{name}{LORA_A}"), inner))
            waiting.append(Node(Linear(inner, f"{name}{LORA_B}", add_to=node.output), node.output))
        result.append(node)
    return result + waiting


def pack_tokens(nodes: Sequence[Node], scale_of: Callable[[str], float | None]) -> list[Node]:
    """With activations of one scale per token, in values of their own, for the matrices that read such: others may
    read the same rows packed by groups. One for all that read the same rows with the same scale.

    `scale_of(weight)`: that of all tokens, 0.0 for each one's own, None of a matrix that reads no such activations.
    """
    number = 1 + max(node.output.index for node in nodes)
    result: list[Node] = []
    packed: dict[tuple[int, float], Value] = {}  # by index of what is packed, until that changes, and scale
    for node in nodes:
        op, output = node.op, node.output
        if isinstance(op, Linear) and (scale := scale_of(op.weight)) is not None:
            place = op.x.index, scale
            if place not in packed:
                packed[place] = Value(number + len(result), op.x.width, op.x.outputs)
                result.append(Node(PackTokens(op.x, scale), packed[place]))
            op = replace(op, x=packed[place])
        result.append(Node(op, output))
        packed = {place: value for place, value in packed.items() if place[0] != output.index}
    return result


@dataclass(frozen=True)
class Packing:
    """By index of value: which are packed as int8 activations, and which of these nothing reads as f32 rows."""

    packed: frozenset[int]
    only_packed: frozenset[int]


def fuse_packing(nodes: Sequence[Node], is_packed: Callable[[str], bool]) -> tuple[list[Node], Packing]:
    """What quantized matrices read, packed by the kernel that writes it where that can, without f32 rows where nothing
    else reads them; elsewhere by an operation of its own."""
    packed = {value.index for node in nodes for value in node.op.packed_reads(is_packed)}
    only = {node.output.index for node in nodes if node.op.packs} & packed
    for node in nodes:
        if not node.op.packs or node.op.changes is not None:
            only.discard(node.output.index)
        only -= {value.index for value in set(node.op.reads) - set(node.op.packed_reads(is_packed))}
    last_use = _last_uses(nodes)
    result: list[Node] = []
    for i, node in enumerate(nodes):
        result.append(node)
        index = node.output.index
        if not node.op.packs and index in packed and last_use[index] != i:
            result.append(Node(Pack(node.output), node.output))
    return result, Packing(frozenset(packed), frozenset(only))


def place(nodes: Sequence[Node], packing: Packing, low: Lowering, kept: Collection[Value]) -> None:
    """Lay out all buffers and steps, without kernels. A value's memory is used again after the last operation that
    touches it, but for that of those `kept`.

    Memory is reserved only: but for vectors and rope tables nothing is written to it.
    """
    last_use = _last_uses(nodes)
    for i, node in enumerate(nodes):
        value = node.output
        if value.index not in low.buffers:
            plain, packed = value.index not in packing.only_packed, value.index in packing.packed
            rows = low.capacity[value.outputs]
            low.buffers[value.index] = low.scratch.buffer(rows, value.width, plain, packed)
        for layer, state in node.op.state(low).items():
            low.keep_in_pages(layer, state)
        node.op.lower(low, value)
        for touched in node.values:
            if last_use[touched.index] == i and touched not in kept:
                low.scratch.release(low.buffers.pop(touched.index))


def _last_uses(nodes: Sequence[Node]) -> dict[int, int]:
    """For each value, by its index, the number of the last operation that touches it."""
    return {value.index: i for i, node in enumerate(nodes) for value in node.values}
