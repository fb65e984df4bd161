"""What operations find when they are lowered: the file, buffers of values, memory to share, and the tape."""

from collections.abc import Hashable, Sequence

import numpy as np

from edgeq.blocks.table import block_type
from edgeq.container.reader import File, TensorInfo
from edgeq.errors import FormatError
from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.buffers import Buffer, Scratch
from edgeq.graph.control import new_control
from edgeq.graph.pages import Kept, PageGroup, page_places
from edgeq.graph.row_tables import OUTPUTS, TOKENS, RowTables
from edgeq.graph.tape import Tape
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP

ROW_TILE = 16  # buffers hold a multiple of this many rows, so that kernels may write whole tiles


class Lowering:
    """For batches of up to `batch` tokens and `outputs` rows of logits, in a session of `context` positions.

    kv: element of the KV cache; tile: of the body (simd/isa.py) whose kernels the tape names
    control: of the team that will walk the tape, where one will
    asked: positions that were asked for, of which `context` may be a few more
    rows: f32 [batch, width] that stand for the embeddings of tokens, where a graph begins with such
    """

    def __init__(
        self,
        file: File,
        context: int,
        batch: int,
        outputs: int,
        threads: int,
        kv: str,
        tile: int,
        control: np.ndarray | None = None,
        asked: int | None = None,
    ) -> None:
        self.asked = asked or context
        self.file, self.context, self.threads, self.kv, self.tile = file, context, threads, kv, tile
        self.capacity = {False: round_up(batch, ROW_TILE), True: round_up(outputs, ROW_TILE)}
        self.shapes = {name: info.shape for name, info in file.tensors.items()}
        self.tables = RowTables(self.capacity[False], self.capacity[True])
        self.places = page_places(context)
        self.rows: np.ndarray | None = None
        self.buffers: dict[int, Buffer] = {}
        self.scratch = Scratch()
        self.control = new_control(threads) if control is None else control
        self.tape = Tape(self.control)
        self.head: int | None = None  # the first step for rows of logits only
        self.keep: list[object] = [file]
        self.layers: dict[Hashable, Kept] = {}  # by the number of a layer, and what else an operation calls its own
        self.groups: dict[int | None, PageGroup] = {}  # by window
        self.taps: dict[str, tuple[np.ndarray, bool]] = {}  # see Plan
        self.shared: dict[Hashable, object] = {}  # what operations with equal parameters share
        self.learned_positions: int | None = None  # there are embeddings of so many only

    def buffer(self, value: Value) -> Buffer:
        """Where a value lies."""
        return self.buffers[value.index]

    def keep_in_pages(self, layer: Hashable, kept: Kept) -> None:
        """A place in the pages for what a layer keeps of earlier tokens, or that of layers which are `alike`."""
        if kept.alike is not None:
            first = self.shared.setdefault(("kept", kept.alike), kept)
            if first is not kept:
                assert isinstance(first, Kept)
                self.layers[layer] = first
                return
        self.layers[layer] = kept
        self.groups.setdefault(kept.window, PageGroup(kept.window, self.capacity[False])).add(kept)

    def kept(self, layer: Hashable) -> Kept:
        """What a layer keeps of earlier tokens."""
        return self.layers[layer]

    def pages(self, kept: Kept) -> int:
        """Address of the addresses of tables, of each row's sequence."""
        return int(self.groups[kept.window].tables.ctypes.data)

    def tensor(self, name: str) -> TensorInfo:
        """A tensor's shape and type."""
        return self.file.tensors[name]

    def is_packed(self, weight: str) -> bool:
        """Whether a matrix is of a quantized type, whose kernels read packed activations."""
        return block_type(self.file.tensors[weight].type).quantized

    def token_scale(self, weight: str) -> float | None:
        """Of a matrix that reads activations with one scale for each token the one that the file gives all of them, or
        0.0; None of other matrices."""
        info = self.file.tensors[weight]
        return (info.activation_scale or 0.0) if block_type(info.type).per_row else None

    def activations(self, value: Buffer, weight: str) -> tuple[int, int]:
        """What the kernel of a matrix reads: addresses of packed words and sums, or f32 rows' address and stride."""
        return (value.words_at, value.sums_at) if self.is_packed(weight) else (value.address, value.stride)

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

    def vector(self, name: str | None) -> int:
        """Address of a 1-D tensor, padded with zeros to 32 where its length needs that; 0 for none."""
        if not name:
            return 0
        data = self.file.data(name).view(np.float32)
        if data.size % GROUP:
            padded = aligned(round_up(data.size, GROUP) * 4).view(np.float32)
            padded[: data.size] = data
            data = padded
        self.keep.append(data)
        return int(data.ctypes.data)

    def product(self, names: Sequence[str], width: int) -> int:
        """Address of the product of 1-D tensors of `width` values, of ones if there are none, padded with zeros to
        32."""
        if len(names) == 1:
            return self.vector(names[0])
        data = aligned(round_up(width, GROUP) * 4).view(np.float32)
        data[:width] = 1.0
        for name in names:
            data[:width] *= self.file.data(name).view(np.float32)
        self.keep.append(data)
        return int(data.ctypes.data)

    def count(self, value: Value) -> int:
        """Address of the number of rows of a value."""
        return self.tables.count(OUTPUTS if value.outputs else TOKENS)
