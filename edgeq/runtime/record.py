"""Record what a model says of its graph: a list of operations on symbolic values, for the plan compiler."""

from dataclasses import dataclass, field

from edgeq.kernels.layout import GROUP
from edgeq.models.graph import Experts, Heads, Rope, Value


@dataclass
class Operation:
    """One operation. `inputs` are read, `output` is written (added to, for a linear or a norm with `accumulate`).

    `factor` and `variant` are what elementwise kernels need; `eps` is a norm's.
    """

    kind: str
    inputs: tuple[Value, ...]
    output: Value
    weight: str = ""
    bias: str | None = None
    accumulate: bool = False
    eps: float = 0.0
    heads: Heads | None = None
    rope: Rope | None = None
    layer: int = 0
    variant: str = ""
    factor: float = 1.0
    experts: Experts | None = None

    @property
    def packs(self) -> bool:
        """Whether its kernel also writes its result as packed int8 activations."""
        if self.kind == "attention":
            return self.heads is not None and self.heads.head_dim % GROUP == 0
        return self.kind in ("norm", "silu_mul", "layer_norm", "activation")


@dataclass
class Recorder:
    """`models.graph.Graph`, recorded. `shapes` gives [rows, columns] of every matrix."""

    shapes: dict[str, tuple[int, ...]]
    operations: list[Operation] = field(default_factory=list)
    _values: int = 0

    def _value(self, width: int, outputs: bool = False) -> Value:
        self._values += 1
        return Value(self._values - 1, width, outputs)

    def _add(self, operation: Operation) -> Value:
        self.operations.append(operation)
        return operation.output

    def embedding(self, weight: str) -> Value:
        return self._add(Operation("embedding", (), self._value(self.shapes[weight][1]), weight))

    def add_positions(self, x: Value, weight: str) -> Value:
        return self._add(Operation("positions", (), x, weight))

    def add_row(self, x: Value, weight: str) -> Value:
        return self._add(Operation("add_row", (), x, weight))

    def rms_norm(self, x: Value, weight: str, eps: float, add_to: Value | None = None) -> Value:
        output = self._value(x.width, x.outputs) if add_to is None else add_to
        return self._add(Operation("norm", (x,), output, weight, accumulate=add_to is not None, eps=eps))

    def layer_norm(self, x: Value, weight: str, bias: str | None, eps: float) -> Value:
        return self._add(Operation("layer_norm", (x,), self._value(x.width, x.outputs), weight, bias, eps=eps))

    def head_norm(self, x: Value, weight: str, eps: float) -> Value:
        return self._add(Operation("head_norm", (), x, weight, eps=eps))

    def linear(self, x: Value, weight: str, bias: str | None = None, add_to: Value | None = None) -> Value:
        output = self._value(self.shapes[weight][0], x.outputs) if add_to is None else add_to
        return self._add(Operation("linear", (x,), output, weight, bias, accumulate=add_to is not None))

    def attention(self, q: Value, k: Value, v: Value, heads: Heads, rope: Rope, layer: int) -> Value:
        self._add(Operation("rope", (k, v), q, heads=heads, rope=rope, layer=layer))
        return self._add(Operation("attention", (q,), self._value(q.width), heads=heads, layer=layer))

    def short_conv(self, x: Value, weight: str, bias: str | None, layer: int) -> Value:
        return self._add(Operation("short_conv", (x,), self._value(x.width // 3), weight, bias, layer=layer))

    def silu_mul(self, gate: Value, up: Value) -> Value:
        return self._add(Operation("silu_mul", (gate, up), self._value(gate.width, gate.outputs)))

    def activation(self, x: Value, kind: str, up: Value | None = None) -> Value:
        inputs, variant = ((x,), kind) if up is None else ((x, up), f"{kind}-mul")
        return self._add(Operation("activation", inputs, self._value(x.width, x.outputs), variant=variant))

    def experts(self, x: Value, router: Value, experts: Experts, add_to: Value) -> Value:
        return self._add(Operation("experts", (x, router), add_to, experts=experts))

    def sigmoid_gate(self, x: Value, gate: Value, add_to: Value) -> Value:
        return self._add(Operation("elementwise", (x, gate), add_to, variant="gate"))

    def scale(self, x: Value, factor: float) -> Value:
        return self._add(Operation("elementwise", (), x, variant="scale", factor=factor))

    def add(self, x: Value, y: Value, factor: float = 1.0) -> Value:
        return self._add(Operation("elementwise", (y,), x, variant="add", factor=factor))

    def softcap(self, x: Value, cap: float) -> Value:
        return self._add(Operation("elementwise", (), x, variant="softcap", factor=cap))

    def outputs(self, x: Value) -> Value:
        return self._add(Operation("copy_rows", (x,), self._value(x.width, True)))


class StatesRecorder(Recorder):
    """A graph without its head: the last norm's result, for every token."""

    _states: int | None = None  # operations before the last norm

    def outputs(self, x: Value) -> Value:
        self._states = len(self.operations)
        return x

    def states(self, result: Value) -> Value:
        """What the head reads, the head's operations dropped; `result` for a graph that has no head."""
        if self._states is None:
            return result
        head = next(i for i in range(self._states, len(self.operations)) if self.operations[i].kind == "linear")
        del self.operations[head:]
        return self.operations[-1].output
