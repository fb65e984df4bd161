"""Compile a model's graph to a plan: its operations in their order, each with buffers that live as long as it needs."""

import zlib
from collections.abc import Callable, Collection, Hashable

import numpy as np

from edgeq.container.reader import File
from edgeq.errors import ContextError, UsageError
from edgeq.graph.aligned import round_up
from edgeq.graph.lowering import ROW_TILE, Lowering
from edgeq.graph.op import Node
from edgeq.graph.pages import Kept
from edgeq.graph.plan import Plan
from edgeq.graph.tape import Tape
from edgeq.graph.value import Value
from edgeq.models.architecture import Architecture
from edgeq.models.matrix import check_tensors, layers_held
from edgeq.ops import Graph, passes
from edgeq.ops.rope import Rope
from edgeq.runtime.adapted import AdaptedFile
from edgeq.runtime.team import KERNELS as TEAM_KERNELS
from edgeq.toolchain import library


class Compiler:
    """From an architecture and a file to a Plan for batches of up to `batch` tokens and `outputs` rows of logits.

    states: the result is what the head would read, for every token
    rows: f32 rows stand in `Plan.rows` in place of token ids
    taps: names of matrices whose f32 input is kept in `Plan.taps`
    stages: those of the model that are run, see Architecture.graph; all by default
    only_taps: nothing after the last tap is run, whose rows are the result
    tile: that of the body (simd/isa.py) whose kernels the plan names, by default of the one that runs here
    control: of the team that will walk the plan's tape, where one will
    asked: see Lowering
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
        rows: bool = False,
        taps: Collection[str] = (),
        stages: range | None = None,
        only_taps: bool = False,
        control: np.ndarray | None = None,
        asked: int | None = None,
    ) -> None:
        self.file, self.model, self.states, self.rows, self.taps = file, model, states, rows, taps
        self.stages, self.only_taps = stages, only_taps
        tile = tile or library.chosen_isa().tile
        self._low = Lowering(file, context, batch, outputs, threads, kv, tile, control, asked)

    @property
    def tape(self) -> Tape:
        return self._low.tape

    @property
    def layers(self) -> dict[Hashable, Kept]:
        """What each keeps of earlier tokens."""
        return self._low.layers

    @property
    def scratch_bytes(self) -> int:
        return self._low.scratch.nbytes

    def compile(self, announce: Callable[[str], None] | None = None) -> Plan:
        """The plan; kernels that are missing are compiled. Raises FormatError, ContextError, KernelError, UsageError
        for a tap that is no matrix of a linear layer."""
        result, low = self.place(), self._low
        most = low.learned_positions
        if most is not None and low.context > round_up(most, ROW_TILE):
            raise ContextError(
                f"{self.file.path}: has embeddings of {most} positions: ask for a context of at most {most}"
            )
        names = low.tape.kernels
        tape = low.tape.words(library.prepare([*names, *TEAM_KERNELS], announce))
        rows = low.buffer(result).rows
        assert rows is not None
        return Plan(
            low.tables,
            rows[:, : result.width],
            tape,
            low.head,
            names,
            list(low.groups.values()),
            low.scratch.nbytes,
            low.rows,
            low.taps,
            [*low.keep, low.buffers, low.scratch, low.shared, [words for _, _, words in low.tape.steps]],
            self._rope(),
        )

    def _rope(self) -> int:
        ropes = [rope.for_context(self._low.asked) for rope in self._low.shared if isinstance(rope, Rope)]
        text = [[f"{f:.6g}" for f in (rope.attention_factor, *rope.inverse_frequencies)] for rope in ropes]
        return zlib.crc32(repr(text).encode())

    def place(self) -> Value:
        """Lay out all buffers and steps, without kernels; the value that is the result."""
        layers = layers_held(self.model.num_hidden_layers, self.file.metadata["config"])
        check_tensors(self._low.shapes, self.model.tensors, layers, str(self.file.path))
        graph = Graph(self._low.shapes)
        result = self.model.graph(graph, self.stages)
        nodes, kept = graph.nodes, [result]
        if self.states:
            nodes, result = passes.states(nodes, result)
            kept = [result]
        if self.rows:
            nodes = passes.from_rows(nodes)
        if isinstance(self.file, AdaptedFile):
            nodes = passes.adapted(nodes, self.file.adapted)
        if self.taps:
            nodes, copies = self._tapped(nodes)
            if self.only_taps:
                nodes, result = passes.up_to_taps(nodes)
            kept += copies
        nodes = passes.pack_tokens(nodes, self._low.token_scale)
        nodes, packing = passes.fuse_packing(nodes, self._low.is_packed)
        passes.place(nodes, packing, self._low, kept)
        return result

    def _tapped(self, nodes: list[Node]) -> tuple[list[Node], list[Value]]:
        try:
            return passes.taps(nodes, self.taps)
        except KeyError as error:
            name = error.args[0]
            raise UsageError(
                f"{self.file.path}: {name} is no matrix of a linear layer that this session has: tap another"
            ) from None
