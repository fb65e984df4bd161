"""Will a model run in the memory there is? An estimate before anything is loaded, and the largest context that fits.

What counts is what the process will hold once its context is full: the file's pages, which must stay in the page cache
or every token reads them from the disk again; keys and values; buffers; and what the program itself still has to load.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError
from edgeq.graph.aligned import round_up
from edgeq.graph.lowering import ROW_TILE
from edgeq.graph.pages import Kept, most_pages, page_places
from edgeq.kernels.layout import KV_BYTES, kv_scale_bytes
from edgeq.models.architecture import Architecture
from edgeq.runtime import hardware
from edgeq.runtime.compiler import Compiler
from edgeq.runtime.team import KERNELS as TEAM_KERNELS
from edgeq.system import cgroups
from edgeq.toolchain import library

MIB = 1 << 20
POSITIONS = 16  # a context is a multiple of these
BY_ROW = ("per_layer_token_embd.weight",)  # as large as all the rest, and a pass reads a row of it per token
LOOKED_UP = (
    "position_embd.weight",
    "token_types.weight",
    "shortconv.conv.weight",
    "ssm_conv1d.weight",
    "ssm_a.weight",
    *BY_ROW,
)  # a row or tap of them per token
AFTER_POOLING = ("cls.", "dense_")  # NumPy multiplies these
BLOCK = 256  # positions by which plans are compared: attention's scratch grows in such steps

# Resident memory on top of what the process already has, measured on x86-64 with CPython 3.11.
LIBRARIES = 6 * MIB  # loaded kernels, threads, chat templates, logits
SCRATCH = 256 * MIB  # more than most models' buffers
COMPILER = 100 * MIB  # Numba and LLVM's passes, where kernels must be compiled first
TOKENIZERS = {
    "tokenizer.json": 700,
    "tokenizer.model": 250,
    "rwkv_vocab_v20230424.txt": 300,
}  # bytes per token of the vocabulary


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
    """What a model needs for a context, as a session of `threads` threads and batches of `batch` tokens will.

    Raises FormatError for a file that lacks tensors, as the plan compiler does.
    """

    def __init__(
        self,
        file: File,
        model: Architecture,
        kv: str,
        batch: int,
        outputs: int,
        threads: int,
        rows: bool = False,
        taps: Collection[str] = (),
    ) -> None:
        self.file, self.model, self.kv = file, model, kv
        self.batch, self.outputs, self.threads = batch, outputs, threads
        self.rows, self.taps = rows, taps
        self._plans: dict[int, _Planned] = {}
        tokenizer = next((size for name, size in TOKENIZERS.items() if name in file.assets), 0)
        self._program = LIBRARIES + model.vocab_size * tokenizer

    @cached_property
    def _compiler(self) -> int:
        return COMPILER if library.missing(kernel_names(self.file)) and find_spec("numba") else 0

    def estimate(self, context: int) -> Estimate:
        """For `context` positions."""
        rows, positions = round_up(min(self.batch, context), ROW_TILE), round_up(context, POSITIONS)
        plan, blocks = self._planned(rows), -(-context // BLOCK)
        return Estimate(
            weights=sum(info.nbytes for name, info in self.file.tensors.items() if name not in BY_ROW),
            kv=sum(
                kept.page_bytes(page_places(positions)) * most_pages(kept.window, positions, rows)
                for kept in plan.layers
            ),
            scratch=plan.scratch + (blocks - 1) * plan.more_scratch,
            program=self._program + self._compiler,
        )

    def _rough(self, context: int) -> int:
        """About the total, without planning, from the heads that most layers have."""
        heads = self.model.heads
        width = KV_BYTES[self.kv] * (heads.head_dim + round_up(heads.head_dim, 16))
        width += 2 * kv_scale_bytes(self.kv, heads.head_dim)
        layers = self.model.num_hidden_layers if heads.causal else 1
        kv = layers * heads.num_key_value_heads * width
        return resident(self.file) + context * kv + SCRATCH + self._program + COMPILER

    def _with_q8_0(self) -> "Fit":
        return Fit(self.file, self.model, "q8_0", self.batch, self.outputs, self.threads, self.rows, self.taps)

    def _planned(self, rows: int) -> "_Planned":
        """What the plan compiler reserves in batches of `rows` tokens."""
        if rows not in self._plans:
            first, second = (self._placed(positions, rows) for positions in (BLOCK, 2 * BLOCK))
            layers = list({id(kept): kept for kept in first.layers.values()}.values())  # several may have one place
            self._plans[rows] = _Planned(layers, first.scratch_bytes, second.scratch_bytes - first.scratch_bytes)
        return self._plans[rows]

    def _placed(self, positions: int, rows: int) -> Compiler:
        compiler = Compiler(
            self.file,
            self.model,
            positions,
            rows,
            self.outputs,
            self.threads,
            self.kv,
            rows=self.rows,
            taps=self.taps,
        )
        compiler.place()
        return compiler

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
        if not self.taps and 2 * self._rough(context) <= available:
            return  # planning takes a while; where there is plenty, nobody has to wait for it
        need = self.estimate(context)
        if need.total <= available:
            return
        largest = self.largest_context(available)
        parts = f"weights {_mib(need.weights)}, KV cache {_mib(need.kv)}, rest {_mib(need.scratch + need.program)}"
        advice = f"a context of at most {largest} fits" if largest else "no context fits: ask for a smaller type"
        if largest and self.kv != "q8_0" and (more := self._with_q8_0().largest_context(available)) > largest:
            advice += f", of {more} with --kv q8_0"
        if largest:
            advice += ": ask for less"
        raise MemoryLimitError(
            f"{self.file.path}: a context of {context} needs {_mib(need.total)} MiB of memory ({parts}), "
            f"{_mib(available)} MiB are available: {advice}, or insist with --force (force=True): it may be very slow"
        )


@dataclass(frozen=True)
class _Planned:
    """What each layer keeps; scratch for BLOCK positions, and for every BLOCK more."""

    layers: list[Kept]
    scratch: int
    more_scratch: int


def available_memory(root: Path = hardware.ROOT) -> int:
    """Bytes that this process can still get: what the system has, or its control group if that has less.

    Cached file pages count as available, as the system drops them when memory is needed. Swap does not count.
    """
    free = hardware.memory(root).available
    limit = cgroups.memory_limit(root)
    return free if limit is None else min(free, limit.available)


def resident(file: File) -> int:
    """Bytes of a file that a model comes back to in every pass."""
    return file.nbytes - sum(info.nbytes for name, info in file.tensors.items() if name in BY_ROW)


def kernel_names(file: File) -> list[str]:
    """Kernels that any run of this file needs; the plan knows the rest."""
    types = {
        t.type
        for name, t in file.tensors.items()
        if len(t.shape) == 2 and not name.endswith(LOOKED_UP) and not name.startswith(AFTER_POOLING)
    }
    return [*TEAM_KERNELS, *(f"matmul:{kind}" for kind in sorted(types))]


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:.0f}"
