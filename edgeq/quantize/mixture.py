"""A mixture of experts quantized for what each of its experts reads, and corrected towards what it would have given.

An expert sees a few of the tokens. What all of them read stands in for those that it has not seen, as if it had seen
as many of them as its matrix has columns.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type, tensor_bytes
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned_copy
from edgeq.ops.activation import reference as activated
from edgeq.ops.expert_rows import gated_reference
from edgeq.quantize.factors import Metric
from edgeq.quantize.reads import Router
from edgeq.quantize.stages import Rows, moment

DOWN = "down"


class Share(NamedTuple):
    """What an expert is given: rows f32 [tokens, columns] in the float model and in the quantized one; what each result
    counts, f32 [tokens, 1]."""

    exact: F32
    seen: F32
    counts: F32


class Mixture:
    """The experts behind `router`; `types` are the block types of matrices, by name: those that are not in it stay."""

    def __init__(self, file: File, router: Router, types: Mapping[str, str], threads: int) -> None:
        self.file, self.router, self.types, self.threads = file, router, types, threads
        self.mix = router.mix

    @property
    def quantizes(self) -> bool:
        """Whether any of its matrices is to be quantized."""
        return any(self.name(part) in self.types for part in (*self.mix.reading, DOWN))

    def name(self, part: str) -> str:
        """Of the matrices of all experts."""
        return f"{self.mix.prefix}_{part}_exps.weight"

    def tensors(self, exact: Rows, seen: Rows) -> Iterator[tuple[str, U8]]:
        """(name, panels) of gate, up and down, from what the router reads in the float model and in the quantized
        one."""
        shares = self._shares(np.concatenate(exact), np.concatenate(seen))
        read = [share.seen for share in shares if len(share.seen)] if self.mix.weighs_inputs else seen
        usual = moment(read, read)
        into = {part: self._quantized(part, shares, usual) for part in self.mix.reading}
        within = [
            Share(self._gated(e, exact), self._gated(e, seen, {part: into[part][e] for part in into}), counts)
            for e, (exact, seen, counts) in enumerate(shares)
        ]
        rows = [share.seen for share in within if len(share.seen)]
        down = self._quantized(DOWN, within, moment(rows, rows))
        for part, made in (*into.items(), (DOWN, down)):
            if self.name(part) in self.types:
                yield self.name(part), aligned_copy(np.concatenate(made))

    def _shares(self, exact: F32, seen: F32) -> list[Share]:
        """By expert, as the quantized model routes its tokens."""
        chosen, counts = self.router.routed(seen.astype(np.float64))
        found = []
        for e in range(self.mix.count):
            tokens, place = np.nonzero(chosen == e)
            weights = counts[tokens, place][:, None]
            if self.mix.weighs_inputs:
                found.append(Share(exact[tokens] * weights, seen[tokens] * weights, np.ones_like(weights)))
            else:
                found.append(Share(exact[tokens], seen[tokens], weights))
        return found

    def _quantized(self, part: str, shares: list[Share], usual: npt.NDArray[np.float64]) -> list[U8]:
        """Panels of each expert's matrix; those that it has, if it is not to be quantized."""
        info = self.file.tensors[self.name(part)]
        experts, _, columns = info.shape
        if info.name not in self.types:
            return list(self.file.data(info.name).reshape(experts, -1))
        bt, found = block_type(self.types[info.name]), []
        for e, (exact, seen, counts) in enumerate(shares):
            weights, x = self._weights(part, e), seen * counts
            off = (exact * counts - x).T.astype(np.float64) @ x
            weight = float(np.square(counts, dtype=np.float64).mean()) if len(counts) else 1.0
            gram = (x.T @ x + columns * weight * usual) / (len(x) + columns)
            metric = Metric(gram, len(x) + columns)
            target = metric.corrected(weights.astype(np.float64), weights @ off / (len(x) + columns))
            found.append(metric.quantize(target.astype(np.float32), bt, self.threads))
        return found

    def _gated(self, expert: int, x: F32, given: Mapping[str, U8] | None = None) -> F32:
        """What an expert's down projection reads, f32 [tokens, columns]; with panels in place of its own, if given."""
        made = []
        for part in self.mix.reading:
            weights = self._weights(part, expert)
            if given is not None and self.name(part) in self.types:
                rows, columns = weights.shape
                weights = decode(given[part], rows, columns, self.types[self.name(part)])
            made.append(x @ weights.T + self._bias(part, expert))
        if self.mix.activation != "silu":
            return activated(made[0], self.mix.activation, made[1] if len(made) > 1 else None)
        return gated_reference(made[0], made[1], self.mix.alpha, self.mix.limit)

    def _weights(self, part: str, expert: int) -> F32:
        info = self.file.tensors[self.name(part)]
        _, rows, columns = info.shape
        nbytes = tensor_bytes(info.type, (rows, columns))
        return decode(self.file.data(info.name)[expert * nbytes : (expert + 1) * nbytes], rows, columns, info.type)

    def _bias(self, part: str, expert: int) -> F32:
        name = f"{self.mix.prefix}_{part}_exps.bias"
        if name not in self.file.tensors:
            return np.zeros(1, np.float32)
        bias: F32 = self.file.data(name).view(np.float32).reshape(self.mix.count, -1)[expert]
        return bias
