"""Measure what this machine can do at most, with the same threads that run a model."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from edgeq.graph.aligned import aligned
from edgeq.graph.control import turn_counters
from edgeq.kernels.argument_blocks import Dot, Read
from edgeq.kernels.layout import PROBE_LINES, STEP_WORDS
from edgeq.runtime.fit import available_memory
from edgeq.runtime.team import KERNELS as TEAM_KERNELS
from edgeq.runtime.team import Team
from edgeq.toolchain import library

KERNELS = (*TEAM_KERNELS, "probe:read", "probe:dot-4")  # of the measurements with 4-bit codes
ALL_KERNELS = (*KERNELS, "probe:dot-5", "probe:dot-6", "probe:dot-8")
READ_BYTES, LEAST_READ_BYTES = 256 << 20, 32 << 20  # beyond any cache, and beyond those of small boards
_DOT_REPETITIONS = 500_000  # some 100 ms: a core that was idle needs a while to reach its speed


def prepare(bits: Iterable[int], announce: Callable[[str], None]) -> None:
    """Have what `read_bandwidth` and `dot_peak` need at hand; `announce` hears it if that must be compiled."""
    library.prepare([*TEAM_KERNELS, "probe:read", *(f"probe:dot-{b}" for b in bits)], announce)


def _best(run: Callable[[], None], repetitions: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _on_team(team: Team, name: str, args: Read | Dot, repetitions: int) -> float:
    counters, barriers = turn_counters(team.control)
    block = np.array(args._replace(counters=counters, barriers=barriers), dtype=np.int64)
    tape = aligned(STEP_WORDS * 8).view(np.int64)
    tape[:] = library.kernel(name).address, block.ctypes.data, 1
    team.run(tape.ctypes.data, 1)
    return _best(lambda: team.run(tape.ctypes.data, 1), repetitions)


def read_bandwidth(team: Team, repetitions: int = 5) -> float:
    """Bytes per second that the team reads from memory."""
    room = available_memory() // 4  # the rest is for a model, and for the pages of its file
    data, out = aligned(max(LEAST_READ_BYTES, min(READ_BYTES, room // 4096 * 4096))), aligned(64 * team.threads)
    data[:] = 1
    seconds = _on_team(team, "probe:read", Read(data.ctypes.data, data.nbytes, out.ctypes.data), repetitions)
    return data.nbytes / seconds


def dot_peak(team: Team, bits: int = 4, repetitions: int = 5) -> float:
    """Multiply-adds per second of the chosen body's byte dot products on `bits`-bit codes, everything in L1."""
    isa = library.chosen_isa()
    lines, words, sums = aligned(64 * PROBE_LINES), aligned(4 * PROBE_LINES * isa.tile), aligned(20 * isa.tile)
    out = aligned(team.threads * isa.tile * 64)
    args = Dot(lines.ctypes.data, words.ctypes.data, sums.ctypes.data, _DOT_REPETITIONS, out.ctypes.data)
    seconds = _on_team(team, f"probe:dot-{bits}", args, repetitions)
    return team.threads * _DOT_REPETITIONS * isa.tile * 16 * 4 * PROBE_LINES / seconds
