"""Compile a model's graph to a plan: its operations in their order, each with buffers that live as long as it needs."""

from collections.abc import Callable

import numpy as np

from edgeq.blocks.table import block_type
from edgeq.container.reader import File
from edgeq.errors import ContextError, FormatError
from edgeq.kernels.layout import GROUP
from edgeq.models.architecture import Architecture
from edgeq.models.graph import Heads, Rope, Value
from edgeq.runtime import attention_steps, expert_steps, steps
from edgeq.runtime.attention_steps import AttentionMemory
from edgeq.runtime.buffers import Buffer, Scratch
from edgeq.runtime.control import new_control
from edgeq.runtime.kv_cache import Ring
from edgeq.runtime.memory import aligned, round_up
from edgeq.runtime.plan import OUTPUTS, TOKENS, Plan
from edgeq.runtime.record import Operation, Recorder, StatesRecorder
from edgeq.runtime.tape import Tape
from edgeq.runtime.team import KERNELS as TEAM_KERNELS
from edgeq.toolchain import library

ROW_TILE = 16  # buffers hold a multiple of this many rows, so that kernels may write whole tiles
STEPS = {**steps.STEPS, **attention_steps.STEPS, **expert_steps.STEPS}


class Compiler:
    """From an architecture and a file to a Plan for batches of up to `batch` tokens and `outputs` rows of logits; with
    `states` the result is what the head would read, for every token. `tile` is that of the body (simd/isa.py) whose
    kernels the plan names, by default of the one that runs here.

    The functions in STEPS add an operation's steps to `tape`, and find here what these need.
    """

    def __init__(
        self,
        file: File,
        model: Architecture,
        context: int,
        batch: int,
        outputs: int,
        threads: int,
        kv: str,
        states: bool = False,
        tile: int | None = None,
    ) -> None:
        self.file, self.model, self.kv, self.states = file, model, kv, states
        self.tile = tile or library.chosen_isa().tile
        self.context, self.threads = context, threads
        self.capacity = {False: round_up(batch, ROW_TILE), True: round_up(outputs, ROW_TILE)}
        self.params = aligned(4 * 8).view(np.int64)
        self.tokens = aligned(self.capacity[False] * 8).view(np.int64)
        self.buffers: dict[int, Buffer] = {}
        self.scratch = Scratch()
        self.control = new_control(threads)
        self.tape = Tape(self.control)
        self.keep: list[object] = [file]
        self.caches: dict[int, Ring] = {}
        self.tables: dict[Rope, np.ndarray] = {}  # cos and sin, shared by the layers that have the same rope
        self.attention_memory: dict[Heads, AttentionMemory] = {}
        self.learned_positions: int | None = None  # there are embeddings of so many only
        self.shapes = {name: info.shape for name, info in file.tensors.items()}

    def compile(self, announce: Callable[[str], None] | None = None) -> Plan:
        """The plan; kernels that are missing are compiled. Raises FormatError, ContextError, KernelError."""
        logits = self.place()
        most = self.learned_positions
        if most is not None and self.context > round_up(most, ROW_TILE):
            raise ContextError(
                f"{self.file.path}: has embeddings of {most} positions: ask for a context of at most {most}"
            )
        names = self.tape.kernels
        tape = self.tape.words(library.prepare([*names, *TEAM_KERNELS], announce))
        memory = [self.buffers, self.scratch.free, self.tables, self.attention_memory]
        self.keep += [*memory, [args for _, args in self.tape.steps]]
        rows = self.buffers[logits.index].rows
        assert rows is not None
        return Plan(
            self.params,
            self.tokens,
            rows[:, : logits.width],
            tape,
            self.control,
            names,
            list(self.caches.values()),
            self.scratch.nbytes,
            self.keep,
        )

    def place(self) -> Value:
        """Lay out all buffers and steps, without kernels; the result is the logits.

        Memory is reserved only: but for vectors and rope tables nothing is written to it.
        """
        self._check_tensors()
        recorder = StatesRecorder(self.shapes) if self.states else Recorder(self.shapes)
        logits = self.model.graph(recorder)
        if isinstance(recorder, StatesRecorder):
            logits = recorder.states(logits)
        last_use = {v.index: i for i, op in enumerate(recorder.operations) for v in (*op.inputs, op.output)}
        packed, only_packed = self._packed_values(recorder.operations), self._only_packed(recorder.operations)
        for i, op in enumerate(recorder.operations):
            value = op.output
            if value.index not in self.buffers:
                self.buffers[value.index] = self.scratch.buffer(
                    self.capacity[value.outputs], value.width, value.index not in only_packed, value.index in packed
                )
            STEPS[op.kind](self, op)
            if not op.packs and value.index in packed and last_use[value.index] != i:
                steps.quantize(self, value)
            for value in {v.index: v for v in (*op.inputs, op.output)}.values():
                if last_use[value.index] == i and value.index != logits.index:
                    self.scratch.release(self.buffers.pop(value.index))
        return logits

    def _check_tensors(self) -> None:
        for name, tensor in self.model.tensors.items():
            shape = tensor.shape
            if name not in self.shapes:
                raise FormatError(f"{self.file.path}: tensor {name} is missing: convert the checkpoint again")
            if tuple(self.shapes[name]) != shape:
                raise FormatError(
                    f"{self.file.path}: tensor {name} is {list(self.shapes[name])}, its configuration needs "
                    f"{list(shape)}: convert the checkpoint again"
                )

    def _packed_values(self, operations: list[Operation]) -> set[int]:
        """Values that some quantized matrix reads."""
        return {op.inputs[0].index for op in operations if op.kind == "linear" and self.is_packed(op.weight)}

    def _only_packed(self, operations: list[Operation]) -> set[int]:
        """Values that a kernel writes packed and that nothing reads as f32 rows."""
        written = {op.output.index for op in operations if op.packs} & self._packed_values(operations)
        for op in operations:
            if op.accumulate or not op.packs:
                written.discard(op.output.index)
            if op.kind != "linear" or not self.is_packed(op.weight):
                written -= {value.index for value in op.inputs}
        return written

    # ---- for the functions in STEPS ----

    def is_packed(self, weight: str) -> bool:
        """Whether a matrix is of a quantized type, whose kernels read packed activations."""
        return block_type(self.file.tensors[weight].type).quantized

    def weights(self, name: str) -> int:
        """Address of a tensor in the map. Its view is kept: while there is one, closing the file does not unmap it."""
        view = self.file.data(name)
        self.keep.append(view)
        return int(view.ctypes.data)

    def f32(self, name: str) -> int:
        """Address of a matrix that kernels read as F32 whatever else there is. FormatError if it is of another type."""
        kind = self.file.tensors[name].type
        if kind != "F32":
            raise FormatError(f"{self.file.path}: tensor {name} is {kind}, it must be F32: convert the model again")
        return self.weights(name)

    def vector(self, name: str) -> int:
        """Address of a 1-D tensor, padded with zeros to 32 where its length needs that."""
        data = self.file.data(name).view(np.float32)
        if data.size % GROUP:
            padded = aligned(round_up(data.size, GROUP) * 4).view(np.float32)
            padded[: data.size] = data
            data = padded
        self.keep.append(data)
        return int(data.ctypes.data)

    def param(self, word: int) -> int:
        """Address of a word of Plan.params."""
        return int(self.params.ctypes.data) + 8 * word

    def count(self, value: Value) -> int:
        """Address of the number of rows of a value."""
        return self.param(OUTPUTS if value.outputs else TOKENS)
