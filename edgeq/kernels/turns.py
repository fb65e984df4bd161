"""Who computes what: each thread has a share of a kernel's work, in turns; who is done takes turns of others' shares.

Cores are never equally fast: some are built slower, and any may have other work. Whoever takes a turn computes it in
the same way, so results do not depend on it.

Turns that were taken are counted in the team's control block, in a line of each share's owner: atomically, and nearly
always by the owner alone. Nobody resets a counter. Each step counts from a number above those of all earlier steps, as
it has the number of barriers so far in its upper bits: what is below says that no turn was taken yet. Steps between the
same two barriers have counters of their own (see layout.py), and so have parts of a step numbers.
"""

from typing import NamedTuple

from edgeq.kernels.layout import BARRIER_BITS, PART_BITS, WORKER_BYTES
from edgeq.simd.memory import load_i64
from edgeq.simd.threads import atomic_exchange_if, atomic_load
from edgeq.simd.vector import device

NOBODY = -1  # has turns left


class Crew(NamedTuple):
    """Thread `thread` of `n_threads`; the address of the first one's counter, or 0 if shares are fixed; and where
    counting begins."""

    thread: int
    n_threads: int
    counters: int
    begin: int


@device
def crew_of(counters, barriers, thread, n_threads):
    """Of a step: addresses of the first thread's counter and of the number of barriers so far; or 0 and 0, for fixed
    shares."""
    if n_threads == 1:
        counters = 0
    return Crew(thread, n_threads, counters, load_i64(barriers) << BARRIER_BITS if counters != 0 else 0)


@device
def for_part(crew, part):
    """The same threads at part `part` (of less than 4096) of a step, which they do in order."""
    return Crew(crew.thread, crew.n_threads, crew.counters, crew.begin + (part << PART_BITS))


@device
def next_owner(crew, owner):
    """Whose turns a thread takes when `owner` has none left: in the order of threads, from itself on."""
    if crew.counters == 0:
        return NOBODY
    owner = owner + 1 if owner + 1 < crew.n_threads else 0
    return owner if owner != crew.thread else NOBODY


@device
def take(crew, owner, last, turns):
    """A turn out of `turns` of an owner's, `turns` if none is left. `last`: which one the thread had before, or -1."""
    if crew.counters == 0:
        return min(last + 1, turns)
    counter = crew.counters + owner * WORKER_BYTES
    while True:
        known = atomic_load(counter)
        turn = max(known - crew.begin, 0)
        if turn >= turns:
            return turns
        if atomic_exchange_if(counter, known, crew.begin + turn + 1) == known:
            return turn


def make_panel_turns(streams: int):
    """`share(panels, thread, n_threads)`: a thread's first panel, how many of its panels each stream has, and how many
    panels are left for it beyond. `turn(i, panels, first, each, left)`: the first panel of turn i of each + left, how
    many panels further each stream reads, and how many streams count."""

    @device
    def share(panels, thread, n_threads):
        units = panels // streams
        first, last = units * thread // n_threads, units * (thread + 1) // n_threads
        return first * streams, last - first, panels - units * streams if thread == n_threads - 1 else 0

    @device
    def turn(i, panels, first, each, left):
        if i < each:  # every stream goes through panels of its own, so that reading ahead never stops
            return first + i, each, streams
        return panels - left + i - each, 0, 1  # too few for all streams: which all read the same one

    return share, turn
