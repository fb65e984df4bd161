"""Will a model run in the memory there is? An estimate before anything is loaded, and the largest context that fits.

What counts is what the process will hold once its context is full: the file's pages, which must stay in the page cache
or every token reads them from the disk again; keys and values; buffers; and what the program itself still has to load.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeq.blocks.table import block_type
from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError
from edgeq.kernels import library
from edgeq.kernels.layout import GROUP, KV_BYTES, SUMS_BYTES, heads_per_tile
from edgeq.models.architecture import Architecture
from edgeq.models.graph import Heads, Value
from edgeq.runtime import cgroups, machine
from edgeq.runtime.memory import round_up
from edgeq.runtime.record import Operation, Recorder
from edgeq.runtime.team import KERNELS as TEAM_KERNELS

MIB = 1 << 20
POSITIONS = 16  # the KV cache holds a multiple of these
ROW_TILE = 16  # buffers hold a multiple of this many rows

# Resident memory on top of what the process already has, measured on x86-64 with CPython 3.11.
LIBRARIES = 16 * MIB  # loaded kernels, threads, chat templates, logits
COMPILER = 100 * MIB  # Numba and LLVM's passes, where kernels must be compiled first
TOKENIZERS = {"tokenizer.json": 700, "tokenizer.model": 250}  # bytes per token of the vocabulary


@dataclass(frozen=True)
class Estimate:
    """Bytes that loading and filling a context will take, beside what the process has already.

    weights: of the file, as pages that the system can drop and read again
    kv:      keys and values of the whole context
    scratch: activations, rope tables, attention's scores
    program: libraries, tokenizer, the compiler where it must run
    """

    weights: int
    kv: int
    scratch: int
    program: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.scratch + self.program


class Fit:
    """What a model needs for a context, as a session of `threads` threads and batches of `batch` tokens will."""

    def __init__(self, file: File, model: Architecture, kv: str, batch: int, outputs: int, threads: int) -> None:
        self.file, self.kv = file, kv
        self.batch, self.outputs, self.threads = batch, outputs, threads
        recorder = Recorder(model.expected())
        self._logits = model.graph(recorder)
        self._operations = recorder.operations
        attention = [op for op in self._operations if op.kind == "rope"]
        self._heads = [op.heads for op in attention if op.heads is not None]
        self._ropes = {op.rope for op in attention if op.rope is not None}
        tokenizer = next((size for name, size in TOKENIZERS.items() if name in file.assets), 0)
        self._program = LIBRARIES + model.vocab_size * tokenizer

    @cached_property
    def _compiler(self) -> int:
        return COMPILER if library.missing(kernel_names(self.file)) else 0

    def estimate(self, context: int) -> Estimate:
        """For `context` positions."""
        return self._estimate(context, self._compiler)

    def _estimate(self, context: int, compiler: int) -> Estimate:
        positions = round_up(context, POSITIONS)
        position = sum(_position_bytes(heads, self.kv) for heads in self._heads)
        buffers = _buffers(self.file, self._operations, self._logits, self._rows(min(self.batch, context)))
        scores = sum(4 * self.threads * tile for tile in {_tile(heads) for heads in self._heads})
        tables = sum(8 * len(rope.inverse_frequencies) for rope in self._ropes)
        return Estimate(
            weights=sum(info.nbytes for info in self.file.tensors.values()),
            kv=positions * position,
            scratch=buffers + positions * (scores + tables),
            program=self._program + compiler,
        )

    def largest_context(self, available: int) -> int:
        """The largest context whose estimate is at most `available` bytes, a multiple of 16; 0 if there is none."""
        low, high = 0, 1
        while high < 1 << 32 and self.estimate(high * POSITIONS).total <= available:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self.estimate(middle * POSITIONS).total <= available:
                low = middle
            else:
                high = middle
        return low * POSITIONS

    def check(self, context: int, available: int) -> None:
        """Raises MemoryLimitError, which says what would fit, if `available` bytes are too few."""
        if self._estimate(context, COMPILER).total <= available:
            return  # whether kernels are there to be found makes no difference, and takes longer than all the rest
        need = self.estimate(context)
        if need.total <= available:
            return
        largest = self.largest_context(available)
        parts = f"weights {_mib(need.weights)}, KV cache {_mib(need.kv)}, rest {_mib(need.scratch + need.program)}"
        advice = f"take a --context of at most {largest}" if largest else "no context fits, so take a smaller type"
        raise MemoryLimitError(
            f"{self.file.path}: a context of {context} needs {_mib(need.total)} MiB of memory ({parts}), "
            f"{_mib(available)} MiB are available: {advice}, or insist with --force (force=True): it may be very slow"
        )

    def _rows(self, batch: int) -> dict[bool, int]:
        return {False: round_up(batch, ROW_TILE), True: round_up(self.outputs, ROW_TILE)}


def available_memory(root: Path = machine.ROOT) -> int:
    """Bytes that this process can still get: what the system has, or its control group if that has less.

    Cached file pages count as available, as the system drops them when memory is needed. Swap does not count.
    """
    free = machine.memory(root).available
    limit = cgroups.memory_limit(root)
    return free if limit is None else min(free, limit.available)


def _position_bytes(heads: Heads, kv: str) -> int:
    """One position's keys and values in a layer (see kv_cache.py)."""
    return KV_BYTES[kv] * heads.num_key_value_heads * (heads.head_dim + round_up(heads.head_dim, 16))


def _tile(heads: Heads) -> int:
    return heads_per_tile(heads.num_attention_heads, heads.num_key_value_heads)


def _buffers(file: File, operations: list[Operation], logits: Value, rows: dict[bool, int]) -> int:
    """Bytes of activation buffers: a value takes memory that an earlier one no longer needs, as in plan.py."""
    packed = {op.inputs[0].index for op in operations if op.kind == "linear" and _quantized(file, op.weight)}
    last_use = {value.index: i for i, op in enumerate(operations) for value in (*op.inputs, op.output)}
    live: dict[int, list[int]] = {}
    free: list[int] = []
    total = 0
    for i, op in enumerate(operations):
        if op.output.index not in live:
            pieces, new = _place(op.output, rows[op.output.outputs], op.output.index in packed, free)
            live[op.output.index] = pieces
            total += new
        for index in {value.index for value in (*op.inputs, op.output)}:
            if last_use[index] == i and index != logits.index:
                free += live.pop(index)
    return total


def _place(value: Value, rows: int, packed: bool, free: list[int]) -> tuple[list[int], int]:
    """The pieces that hold a value, some of them taken from `free`, and how many bytes of them are new."""
    width = round_up(value.width, GROUP)
    sizes = [4 * rows * width]
    if packed:
        sizes += [rows * width, rows * width // GROUP * SUMS_BYTES]
    pieces, new = [], 0
    for i, size in enumerate(sizes):
        padded = i == 0 and width != value.width  # rows with padding must hold zeros there: never recycled
        fitting = [piece for piece in free if size <= piece <= 2 * size and not padded]
        if fitting:
            free.remove(min(fitting))
        else:
            new += size
        pieces.append(min(fitting, default=size))
    return pieces, new


def _quantized(file: File, weight: str) -> bool:
    info = file.tensors.get(weight)  # the plan compiler says it if one is missing
    return info is not None and block_type(info.type).quantized


def kernel_names(file: File) -> list[str]:
    """Kernels that any run of this file needs; the plan knows the rest."""
    types = {info.type for info in file.tensors.values() if len(info.shape) == 2}
    return [*TEAM_KERNELS, *(f"matmul:{kind}" for kind in sorted(types))]


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:.0f}"
