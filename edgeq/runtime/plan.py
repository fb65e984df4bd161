"""Compile a model's graph to a tape: kernels, argument blocks, buffers, and a barrier only where data needs one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edgeq.blocks.table import block_type
from edgeq.container.reader import File
from edgeq.errors import ContextError, FormatError
from edgeq.kernels import library
from edgeq.kernels.layout import (
    ATTENTION_BLOCK,
    ATTENTION_ROWS,
    GROUP,
    STEP_WORDS,
    SUMS_BYTES,
    attention_places,
    heads_per_tile,
)
from edgeq.models.architecture import Architecture
from edgeq.models.graph import Heads, Rope, Value
from edgeq.runtime import steps
from edgeq.runtime.kv_cache import KVCache, Ring, rope_tables
from edgeq.runtime.memory import aligned, bits, round_up
from edgeq.runtime.record import Operation, Recorder, StatesRecorder
from edgeq.runtime.team import KERNELS as TEAM_KERNELS

TOKENS, POSITION, OUTPUTS, FIRST_OUTPUT = range(4)  # words of Plan.params
ROW_TILE = 16  # buffers hold a multiple of this many rows, so that kernels may write whole tiles


@dataclass
class Buffer:
    """Rows of f32, and the same rows as packed int8 activations where a quantized matrix reads them; no f32 rows
    where nothing else does."""

    rows: np.ndarray | None
    stride: int
    words: np.ndarray | None = None
    sums: np.ndarray | None = None

    @property
    def address(self) -> int:
        """Of the f32 rows; 0 if there are none."""
        return 0 if self.rows is None else int(self.rows.ctypes.data)


@dataclass
class Plan:
    """A tape and all the memory it points to. `params`, `tokens` and `logits` are its only interface per call."""

    params: np.ndarray
    tokens: np.ndarray
    logits: np.ndarray
    tape: np.ndarray
    kernels: list[str]
    caches: list[Ring]
    scratch_bytes: int
    keep: list[object] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.tape) // STEP_WORDS

    @property
    def kv_bytes(self) -> int:
        return sum(cache.nbytes for cache in self.caches)


class Compiler:
    """From an architecture and a file to a Plan for batches of up to `batch` tokens and `outputs` rows of logits; with
    `states` the result is what the head would read, for every token."""

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
    ) -> None:
        self.file, self.model, self.kv, self.states = file, model, kv, states
        self.context, self.threads = context, threads
        self.capacity = {False: round_up(batch, ROW_TILE), True: round_up(outputs, ROW_TILE)}
        self.params = aligned(4 * 8).view(np.int64)
        self.tokens = aligned(self.capacity[False] * 8).view(np.int64)
        self.buffers: dict[int, Buffer] = {}
        self.free: list[np.ndarray] = []
        self.scratch_bytes = 0
        self.keep: list[object] = [file]
        self.steps: list[tuple[str, np.ndarray]] = []
        self.barriers: list[bool] = []
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.caches: dict[int, Ring] = {}
        self.tables: dict[Rope, np.ndarray] = {}  # cos and sin, shared by the layers that have the same rope
        self.attention_memory: dict[Heads, tuple[np.ndarray, int, np.ndarray, np.ndarray]] = {}
        self.learned_positions: int | None = None  # there are embeddings of so many only
        self.shapes = {name: info.shape for name, info in file.tensors.items()}

    def compile(self, announce: Callable[[str], None] | None = None) -> Plan:
        logits = self.place()
        most = self.learned_positions
        if most is not None and self.context > round_up(most, ROW_TILE):
            raise ContextError(
                f"{self.file.path}: has embeddings of {most} positions: ask for a context of at most {most}"
            )
        names = [name for name, _ in self.steps]
        kernels = library.prepare([*names, *TEAM_KERNELS], announce)
        self.barriers = [*self.barriers[1:], True]  # a barrier before a step follows the one before it
        tape = aligned(len(names) * STEP_WORDS * 8).view(np.int64)
        for i, ((name, args), barrier) in enumerate(zip(self.steps, self.barriers, strict=True)):
            tape[STEP_WORDS * i :][:STEP_WORDS] = kernels[name].address, args.ctypes.data, barrier
        self.keep += [self.buffers, self.free, self.tables, self.attention_memory, [args for _, args in self.steps]]
        rows = self.buffers[logits.index].rows
        assert rows is not None
        return Plan(
            self.params,
            self.tokens,
            rows[:, : logits.width],
            tape,
            names,
            list(self.caches.values()),
            self.scratch_bytes,
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
            if op.output.index not in self.buffers:
                self.buffers[op.output.index] = self._allocate(
                    op.output, op.output.index in packed, op.output.index not in only_packed
                )
            if op.kind in steps.STEPS:
                steps.STEPS[op.kind](self, op)
            else:
                getattr(self, f"_{op.kind}")(op)
            if not _packs(op) and op.output.index in packed and last_use[op.output.index] != i:
                self._quantize(op.output)
            for value in {v.index: v for v in (*op.inputs, op.output)}.values():
                if last_use[value.index] == i and value.index != logits.index:
                    self._release(self.buffers.pop(value.index))
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

    def _is_packed(self, weight: str) -> bool:
        return block_type(self.file.tensors[weight].type).quantized

    def _packed_values(self, operations: list[Operation]) -> set[int]:
        """Values that some quantized matrix reads."""
        return {op.inputs[0].index for op in operations if op.kind == "linear" and self._is_packed(op.weight)}

    def _only_packed(self, operations: list[Operation]) -> set[int]:
        """Values that a kernel writes packed and that nothing reads as f32 rows."""
        written = {op.output.index for op in operations if _packs(op)} & self._packed_values(operations)
        for op in operations:
            if op.accumulate or not _packs(op):
                written.discard(op.output.index)
            if op.kind != "linear" or not self._is_packed(op.weight):
                written -= {value.index for value in op.inputs}
        return written

    # ---- memory ----

    def _take(self, nbytes: int) -> np.ndarray:
        """The smallest free piece that is large enough, or a new one."""
        fitting = [i for i, piece in enumerate(self.free) if nbytes <= piece.nbytes <= 2 * nbytes]
        if fitting:
            return self.free.pop(min(fitting, key=lambda i: self.free[i].nbytes))
        return self._new(nbytes)

    def _new(self, nbytes: int) -> np.ndarray:
        self.scratch_bytes += nbytes
        return aligned(nbytes)

    def _allocate(self, value: Value, packed: bool, plain: bool) -> Buffer:
        rows, width = self.capacity[value.outputs], round_up(value.width, GROUP)
        buffer = Buffer(None, width * 4)
        if plain:
            # Rows whose width is padded keep zeros in the padding, so they are never recycled memory.
            data = self._take(rows * width * 4) if width == value.width else self._new(rows * width * 4)
            buffer.rows = data[: rows * width * 4].view(np.float32).reshape(rows, width)
        if packed:
            buffer.words = self._take(rows * width)
            buffer.sums = self._take(rows * width // GROUP * SUMS_BYTES)
        return buffer

    def _release(self, buffer: Buffer) -> None:
        for piece in (buffer.rows, buffer.words, buffer.sums):
            if piece is not None:
                self.free.append(piece.reshape(-1).view(np.uint8))

    def _weights(self, name: str) -> int:
        """Address of a tensor in the map. Its view is kept: while there is one, closing the file does not unmap it."""
        view = self.file.data(name)
        self.keep.append(view)
        return int(view.ctypes.data)

    def _f32(self, name: str) -> int:
        """Address of a matrix that kernels read as F32 whatever else there is. FormatError if it is of another type."""
        kind = self.file.tensors[name].type
        if kind != "F32":
            raise FormatError(f"{self.file.path}: tensor {name} is {kind}, it must be F32: convert the model again")
        return self._weights(name)

    def _vector(self, name: str) -> int:
        """Address of a 1-D tensor, padded with zeros to 32 where its length needs that."""
        data = self.file.data(name).view(np.float32)
        if data.size % GROUP:
            padded = aligned(round_up(data.size, GROUP) * 4).view(np.float32)
            padded[: data.size] = data
            data = padded
        self.keep.append(data)
        return int(data.ctypes.data)

    # ---- steps ----

    def _param(self, word: int) -> int:
        return int(self.params.ctypes.data) + 8 * word

    def _count(self, value: Value) -> int:
        return self._param(OUTPUTS if value.outputs else TOKENS)

    def _packed_addresses(self, buffer: Buffer) -> tuple[int, int]:
        if buffer.words is None or buffer.sums is None:
            return 0, 0
        return buffer.words.ctypes.data, buffer.sums.ctypes.data

    def _step(self, kernel: str, args: list[int], reads: list[object], writes: list[object]) -> None:
        """Add a step; a barrier goes before it if it touches what a step since the last barrier wrote, or overwrites
        what one reads."""
        read, written = {id(memory) for memory in self._pieces(reads)}, {id(m) for m in self._pieces(writes)}
        barrier = bool(self.written & (read | written) or self.read & written)
        if barrier:
            self.read, self.written = set(), set()
        self.read |= read
        self.written |= written
        self.barriers.append(barrier)
        self.steps.append((kernel, np.array(args, dtype=np.int64)))

    def _pieces(self, memory: list[object]) -> list[object]:
        """The allocations behind buffers: pieces of recycled memory compare as the allocation they came from."""
        pieces: list[object] = []
        for item in memory:
            parts = [item.rows, item.words, item.sums] if isinstance(item, Buffer) else [item]
            pieces += [_allocation(part) for part in parts if part is not None]
        return pieces

    def _embedding(self, op: Operation) -> None:
        info, out = self.file.tensors[op.weight], self.buffers[op.output.index]
        args = [
            self._weights(op.weight),
            info.shape[1],
            self.tokens.ctypes.data,
            out.address,
            out.stride,
            self._count(op.output),
        ]
        self._step(f"embedding:{info.type}", args, [], [out])

    def _norm(self, op: Operation) -> None:
        x, out = self.buffers[op.inputs[0].index], self.buffers[op.output.index]
        args = [
            x.address,
            x.stride,
            op.output.width,
            self._vector(op.weight),
            bits(op.eps),
            out.address,
            out.stride,
            *self._packed_addresses(out),
            self._count(op.output),
        ]
        self._step("norm:add" if op.accumulate else "norm", args, [x], [out])

    def _silu_mul(self, op: Operation) -> None:
        gate, up = (self.buffers[v.index] for v in op.inputs)
        out = self.buffers[op.output.index]
        args = [
            gate.address,
            up.address,
            gate.stride,
            op.output.width,
            out.address,
            out.stride,
            *self._packed_addresses(out),
            self._count(op.output),
        ]
        self._step("silu_mul", args, [gate, up], [out])

    def _copy_rows(self, op: Operation) -> None:
        x, out = self.buffers[op.inputs[0].index], self.buffers[op.output.index]
        args = [
            x.address,
            x.stride,
            op.output.width,
            out.address,
            out.stride,
            self._param(FIRST_OUTPUT),
            self._param(OUTPUTS),
        ]
        self._step("copy_rows", args, [x], [out])

    def _quantize(self, value: Value) -> None:
        buffer = self.buffers[value.index]
        args = [
            buffer.address,
            buffer.stride,
            value.width,
            *self._packed_addresses(buffer),
            self._count(value),
        ]
        self._step("quantize", args, [buffer.rows], [buffer.words, buffer.sums])

    def _linear(self, op: Operation) -> None:
        x, out = self.buffers[op.inputs[0].index], self.buffers[op.output.index]
        info = self.file.tensors[op.weight]
        if self._is_packed(op.weight):
            source = self._packed_addresses(x)
        else:
            source = (x.address, x.stride)
        args = [
            self._weights(op.weight),
            info.shape[0],
            info.shape[1],
            *source,
            out.address,
            out.stride,
            self._count(op.output),
            self._vector(op.bias) if op.bias else 0,
            int(op.accumulate),
        ]
        self._step(f"matmul:{info.type}", args, [x], [out])

    def _rope(self, op: Operation) -> None:
        assert op.heads is not None and op.rope is not None
        q, (k, v) = self.buffers[op.output.index], (self.buffers[x.index] for x in op.inputs)
        heads, cache = op.heads, KVCache(op.heads, self.context, self.capacity[False], self.kv)
        self.caches[op.layer] = cache
        args = [
            q.address,
            q.stride,
            k.address,
            v.address,
            k.stride,
            heads.num_attention_heads,
            heads.num_key_value_heads,
            heads.head_dim,
            self._tables(op).ctypes.data,
            len(op.rope.inverse_frequencies),
            int(op.rope.interleaved),
            cache.keys.ctypes.data,
            cache.values.ctypes.data,
            cache.ring,
            self._param(TOKENS),
            self._param(POSITION),
        ]
        self._step(f"rope:{self.kv}", args, [], [q, k, v, cache])

    def _tables(self, op: Operation) -> np.ndarray:
        assert op.rope is not None
        if op.rope not in self.tables:
            rope = op.rope.for_context(self.context)
            table = rope_tables(rope.inverse_frequencies, self.context, rope.attention_factor)
            self.scratch_bytes += table.nbytes
            self.tables[op.rope] = table
        return self.tables[op.rope]

    def _attention(self, op: Operation) -> None:
        assert op.heads is not None
        q, out, heads = self.buffers[op.inputs[0].index], self.buffers[op.output.index], op.heads
        cache = self.caches[op.layer]
        assert isinstance(cache, KVCache)
        scratch, per_thread, partials, counters = self._attention_memory(heads)
        args = [
            q.address,
            q.stride,
            out.address,
            out.stride,
            heads.num_attention_heads,
            heads.num_key_value_heads,
            heads.head_dim,
            cache.keys.ctypes.data,
            cache.values.ctypes.data,
            cache.ring,
            bits(heads.scale or 1.0 / math.sqrt(heads.head_dim)),
            heads.sliding_window or 0,
            scratch.ctypes.data,
            per_thread,
            self._param(TOKENS),
            self._param(POSITION),
            *(self._packed_addresses(out) if _packs(op) else (0, 0)),
            partials.ctypes.data,
            counters.ctypes.data,
            bits(heads.softcap),
            self._vector(heads.sinks) if heads.sinks else 0,
            int(not heads.causal),
        ]
        self._step(f"attention:{self._tile(heads)}-{self.kv}", args, [q, cache], [out])

    def _tile(self, heads: Heads) -> int:
        most = library.chosen_isa().tile
        return heads_per_tile(heads.num_attention_heads, heads.num_key_value_heads, most)

    def _attention_memory(self, heads: Heads) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
        """Scratch, its bytes per thread, partial results and counters: layers run in turn and share them."""
        heads = replace(heads, sinks="")
        if heads not in self.attention_memory:
            group, most = heads.num_attention_heads // heads.num_key_value_heads, library.chosen_isa().tile
            per_thread = attention_places(0, round_up(max(ATTENTION_ROWS, group), most), heads.head_dim)[-1]
            rows = round_up(group, self._tile(heads))
            blocks = heads.num_key_value_heads * -(-self.context // ATTENTION_BLOCK)
            self.attention_memory[heads] = (
                self._new(self.threads * per_thread),
                per_thread,
                self._new(blocks * rows * 4 * (round_up(heads.head_dim, 16) + 2)),
                self._new(heads.num_key_value_heads * 8),
            )
        return self.attention_memory[heads]


def _packs(op: Operation) -> bool:
    """Whether an operation's kernel also writes its result as packed int8 activations."""
    if op.kind == "attention":
        return op.heads is not None and op.heads.head_dim % GROUP == 0
    return op.kind in ("norm", "silu_mul", "layer_norm", "activation")


def _allocation(memory: object) -> object:
    """What owns an array's memory; anything else is its own owner."""
    owner = memory
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return owner
