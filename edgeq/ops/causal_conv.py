"""The causal convolution before a recurrent layer, channel by channel, and SiLU, or none. Of each sequence the latest
inputs are kept with the layer's state."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.table import PANEL_ROWS
from edgeq.graph.aligned import aligned
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, RecurrentState
from edgeq.graph.row_tables import RUNS
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    width: int
    weight: int  # F32 panels [width, taps]
    taps: int
    bias: int  # or 0
    kept: (
        int  # where the latest inputs lie in a page: f32 [taps - 1, width], that of position p in row p mod (taps - 1)
    )
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address


@dataclass(frozen=True)
class CausalConv(Op):
    """silu(x through a causal convolution by `weight` [channels, taps] (+ bias)), without SiLU unless `activated`;
    channels are a multiple of 16, taps at least 2. `scales` are factors of x, of so many channels each."""

    x: Value
    weight: str
    bias: str | None
    layer: int
    scales: tuple[tuple[int, float], ...] = ()
    activated: bool = True
    kernels: ClassVar[Variants] = {"causal_conv": lambda isa: ["silu", "plain"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        width, taps = low.shapes[self.weight]
        return {(self.layer, "inputs"): RecurrentState(4 * width * (taps - 1))}

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, kept = low.buffer(self.x), low.buffer(out), low.kept((self.layer, "inputs"))
        args = Args(
            x=x.address,
            x_stride=x.stride,
            width=out.width,
            weight=self._weight(low),
            taps=low.shapes[self.weight][1],
            bias=low.vector(self.bias),
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
        )
        low.tape.add(f"causal_conv:{'silu' if self.activated else 'plain'}", args, [x], [y, kept])

    def _weight(self, low: Lowering) -> int:
        """Address of the panels."""
        address = low.f32(self.weight)
        if not self.scales:
            return address
        panels = low.file.data(self.weight).view(np.float32).reshape(-1, low.shapes[self.weight][1], PANEL_ROWS)
        channels = np.concatenate([np.full(count, scale, np.float32) for count, scale in self.scales])
        scaled = aligned(panels.nbytes).view(np.float32).reshape(panels.shape)
        scaled[:] = panels * channels.reshape(-1, 1, PANEL_ROWS)
        low.keep.append(scaled)
        return int(scaled.ctypes.data)


def make(variant, isa):
    """Threads share the channels, so that the inputs that are kept are written by who has read those before them."""
    from edgeq.kernels.page_table import page_of
    from edgeq.kernels.run_pages import rows_in_page, run_at
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import add, device, div, fma, load_f32x16, neg, splat_f32, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def silu(x):
        return div(x, add(splat_f32(np.float32(1.0)), exp(neg(x))))

    @device
    def plain(x):
        return x

    activation = silu if variant == "silu" else plain

    @device
    def input_at(args, first, start, position):
        """The address of the input of `position`, of a run that starts at `start`: given, or kept."""
        a = arguments(args)
        if position >= start:
            return a.x + (first + position - start) * a.x_stride
        return page_of(a.pages, first, start - 1) + a.kept + position % (a.taps - 1) * a.width * 4

    @device
    def keep(args, first, start, end, begin, stop):
        """Keep the latest inputs before `end`, of the channels from byte `begin` to `stop`, in the page that ends
        there."""
        a = arguments(args)
        page = page_of(a.pages, first, end - 1) + a.kept
        for position in range(max(0, end - (a.taps - 1)), end):
            source = input_at(args, first, start, position)
            target = page + position % (a.taps - 1) * a.width * 4
            for at in range(begin, stop, 64):
                store_f32x16(target + at, load_f32x16(source + at))

    def kernel(args, thread, n_threads):
        a = arguments(args)
        vectors = a.width // 16
        begin, stop = vectors * thread // n_threads * 64, vectors * (thread + 1) // n_threads * 64
        for number in range(load_i64(a.run_count)):
            first, rows, start = run_at(a.runs, number)
            for row in range(rows):
                position = start + row
                target = a.out + (first + row) * a.out_stride
                oldest = max(0, a.taps - 1 - position)
                for at in range(begin, stop, 64):
                    total = load_f32x16(a.bias + at) if a.bias != 0 else zero_f32x16()
                    panel = a.weight + at * a.taps
                    for tap in range(oldest, a.taps):
                        source = input_at(args, first, start, position - (a.taps - 1) + tap)
                        total = fma(load_f32x16(source + at), load_f32x16(panel + tap * 64), total)
                    store_f32x16(target + at, activation(total))
            done = 0
            while done < rows:
                done += rows_in_page(start + done, rows - done)
                keep(args, first, start, start + done, begin, stop)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, activated: bool = True) -> np.ndarray:
    """The NumPy twin, from position 0 on: x [tokens, width], weight [width, taps] -> [tokens, width]."""
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x.astype(np.float64)])
    total = sum(padded[tap : tap + len(x)] * weight[:, tap] for tap in range(taps))
    total = total if bias is None else total + bias
    return np.asarray(total / (1.0 + np.exp(-total)) if activated else total, np.float32)
