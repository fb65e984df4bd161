"""The executor: every thread of a team walks the same tape of kernel calls, meeting at a barrier between steps.

A tape is an array of steps of three int64: kernel address, address of its argument block, 1 if a barrier follows.
The control block of a team is an array of int64, each word that threads write on a cache line of its own; offsets in
bytes are below. Variants: `publish` (the leader announces a tape), `lead` (the leader runs its share), `serve` (a
worker runs tapes until it has been idle for some milliseconds). A job may be for the first workers only: it says for
how many threads it is in the word that announces it, as the other words may be of the next one when a worker that is
not needed looks at them.

Whoever is about to sleep counts itself first and then looks at the word that it waits for, and the kernel looks again;
whoever changes the word then looks at the count: nobody sleeps through a change.
"""

from edgeq.kernels import layout
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64, stack, store_i64
from edgeq.simd.threads import (
    atomic_add,
    atomic_exchange,
    atomic_load,
    call_kernel,
    can_sleep,
    pause,
    sleep_while,
    wake,
)
from edgeq.simd.vector import device

STEP = 8 * layout.STEP_WORDS
ARRIVED, BARRIERS, WAITING = 0, 8 * layout.BARRIERS, 72
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
IDLE = JOB + 8  # workers that sleep until there is a tape; WAITING: threads that sleep at the barrier
WORKERS, WORKER = layout.CONTROL_BYTES, layout.WORKER_BYTES
PARKED, SEEN, HASTY = 0, 8 * layout.SEEN, 16  # within a thread's line
JOB_BITS, JOB_THREADS = layout.JOB_BITS, (1 << layout.JOB_BITS) - 1

# A spin of half a millisecond (two where a pause takes long) covers a token's steps and what the leader does between
# tokens: to be woken takes longer than most of them. Then a thread sleeps. To spin on, or to offer the core again and
# again, would lose milliseconds at every barrier as soon as another program wants the core. Whom a thread waits for may
# also want the very core that it spins on: after a spin in vain the next waits are hasty. An idle worker parks.
_SPINS, _HASTY_SPINS, _HASTY_WAITS = 50_000, 1000, 64
_NAP = 4_000_000  # nanoseconds
_YIELDS = 4000  # instead, where a thread cannot sleep


@device
def _patience(line):
    """For how many pauses the thread of this line spins before it sleeps."""
    return _HASTY_SPINS if load_i64(line + HASTY) != 0 else _SPINS


@device
def _meet(control, line, n_threads):
    """Barrier: the last to arrive opens it for all."""
    before = atomic_load(control + BARRIERS)
    if atomic_add(control + ARRIVED, 1) == n_threads - 1:
        atomic_exchange(control + ARRIVED, 0)
        atomic_add(control + BARRIERS, 1)
        if atomic_load(control + WAITING) != 0:
            wake(control + BARRIERS)
        return
    waited, patience, hasty = 0, _patience(line), load_i64(line + HASTY)
    store_i64(line + HASTY, max(0, hasty - 1))
    while atomic_load(control + BARRIERS) == before:
        if waited < patience:
            waited += 1
            pause()
        else:
            if hasty == 0:
                store_i64(line + HASTY, _HASTY_WAITS)
            atomic_add(control + WAITING, 1)
            sleep_while(control + BARRIERS, before, 0)
            atomic_add(control + WAITING, -1)


@device
def _run(control, thread, n_threads):
    tape, steps = load_i64(control + TAPE), load_i64(control + STEPS)
    line = control + WORKERS + thread * WORKER
    for i in range(steps):
        step = tape + i * STEP
        call_kernel(load_i64(step), load_i64(step + 8), thread, n_threads)
        if n_threads > 1 and load_i64(step + 16) != 0:
            _meet(control, line, n_threads)


def _publish(control, thread, n_threads):
    """Announce the tape in the control block; WAKE becomes the bit mask of workers that sleep and must be woken."""
    number = (atomic_load(control + JOB) >> JOB_BITS) + 1
    atomic_exchange(control + JOB, number << JOB_BITS | n_threads)
    if atomic_load(control + IDLE) != 0:
        wake(control + JOB)
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
    line, nap = control + WORKERS + thread * WORKER, stack(16)
    store_i64(nap, 0)
    store_i64(nap + 8, _NAP)
    waited, patience = 0, _patience(line)
    while True:
        seen, job = load_i64(line + SEEN), atomic_load(control + JOB)
        if job != seen:
            store_i64(line + SEEN, job)
            if load_i64(control + STOP) != 0:
                return
            if thread < job & JOB_THREADS:
                _run(control, thread, job & JOB_THREADS)
                waited, patience = 0, _patience(line)
        elif waited < patience:
            waited += 1
            pause()
        elif waited < patience + _YIELDS:
            waited += _YIELDS if can_sleep() else 1
            atomic_add(control + IDLE, 1)
            sleep_while(control + JOB, seen, nap)
            atomic_add(control + IDLE, -1)
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
