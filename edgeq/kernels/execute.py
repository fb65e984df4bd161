"""The executor: every thread of a team walks the same tape of kernel calls, meeting at a barrier between steps.

A tape is an array of steps of three int64: kernel address, address of its argument block, 1 if a barrier follows.
The control block of a team is an array of int64, each word that threads write on a cache line of its own; offsets in
bytes are below. Variants: `publish` (the leader announces a tape), `lead` (the leader runs its share), `serve` (a
worker runs tapes until it has been idle for some milliseconds).
"""

from edgeq.kernels import layout
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64, store_i64
from edgeq.simd.threads import atomic_add, atomic_exchange, atomic_load, call_kernel, pause, yield_core
from edgeq.simd.vector import device

STEP = 8 * layout.STEP_WORDS
ARRIVED, TURN = 0, 64
JOB, TAPE, STEPS, STOP, LED, WAKE = (
    8 * word
    for word in (
        layout.JOB,
        layout.JOB_TAPE,
        layout.JOB_STEPS,
        layout.JOB_STOP,
        layout.JOB_LED,
        layout.JOB_WAKE,
    )
)
WORKERS, WORKER = layout.CONTROL_BYTES, layout.WORKER_BYTES
PARKED, SEEN = 0, 8  # within a worker's line

# A spin of some 20 microseconds covers steps of a balanced tape. Then the core is offered to others: a pure spin loses
# milliseconds as soon as another program wants the core. A worker idle for a few milliseconds goes to sleep.
_SPINS = 1000
_YIELDS = 4000


@device
def _meet(control, n_threads):
    """Barrier: the last to arrive opens it for all."""
    turn = atomic_load(control + TURN)
    if atomic_add(control + ARRIVED, 1) == n_threads - 1:
        atomic_exchange(control + ARRIVED, 0)
        atomic_add(control + TURN, 1)
        return
    waited = 0
    while atomic_load(control + TURN) == turn:
        if waited < _SPINS:
            waited += 1
            pause()
        else:
            yield_core()


@device
def _run(control, thread, n_threads):
    tape, steps = load_i64(control + TAPE), load_i64(control + STEPS)
    for i in range(steps):
        step = tape + i * STEP
        call_kernel(load_i64(step), load_i64(step + 8), thread, n_threads)
        if n_threads > 1 and load_i64(step + 16) != 0:
            _meet(control, n_threads)


def _publish(control, thread, n_threads):
    """Announce the tape in the control block; WAKE becomes the bit mask of workers that sleep and must be woken."""
    atomic_add(control + JOB, 1)
    mask = 0
    for worker in range(1, n_threads):
        if atomic_exchange(control + WORKERS + worker * WORKER + PARKED, 0) == 1:
            mask |= 1 << worker
    store_i64(control + WAKE, mask)


def _lead(control, thread, n_threads):
    store_i64(control + LED, load_i64(control + JOB))
    _run(control, 0, n_threads)


def _serve(control, thread, n_threads):
    """Run tapes as they come. Returns when idle, or when told to stop: the caller then waits to be woken."""
    line = control + WORKERS + thread * WORKER
    waited = 0
    while True:
        seen = load_i64(line + SEEN)
        if atomic_load(control + JOB) != seen:
            store_i64(line + SEEN, seen + 1)
            if load_i64(control + STOP) != 0:
                return
            _run(control, thread, n_threads)
            waited = 0
        elif waited < _SPINS:
            waited += 1
            pause()
        elif waited < _SPINS + _YIELDS:
            waited += 1
            yield_core()
        else:
            atomic_exchange(line + PARKED, 1)
            if atomic_load(control + JOB) == seen:
                return
            if atomic_exchange(line + PARKED, 0) == 0:
                return  # the leader has seen the parked flag and will wake this worker
            waited = 0


def make(variant: str, isa: Isa):
    """The three functions take the control block's address as their argument block."""
    return {"publish": _publish, "lead": _lead, "serve": _serve}[variant]
