"""The control block of a team, where its threads meet and count (see kernels/execute.py and kernels/turns.py)."""

import numpy as np

from edgeq.graph.aligned import aligned
from edgeq.kernels.layout import BARRIERS, CONTROL_BYTES, TURNS, WORKER_BYTES


def new_control(threads: int) -> np.ndarray:
    """For a team of so many threads: int64, all zero."""
    return aligned(CONTROL_BYTES + threads * WORKER_BYTES).view(np.int64)


def turn_counters(control: np.ndarray, slot: int = 0) -> tuple[int, int]:
    """What a step that counts turns has in its argument block: the address of the first thread's counter in `slot`, of
    TURN_SLOTS, and of the number of barriers so far."""
    address = int(control.ctypes.data)
    return address + CONTROL_BYTES + 8 * (TURNS + slot), address + 8 * BARRIERS
