"""What malloc holds for a server: one heap for all of its threads.

glibc gives threads heaps of their own, so that they need not wait for each other, and each of these has its own holes
between what stays and what goes. Python's threads take turns anyway.
"""

import ctypes

from edgeq.system import environment

M_ARENA_MAX = -8  # of mallopt(3)


def share() -> None:
    """Have threads that begin from now on share the heap of the process, where malloc is glibc's and nobody has told it
    otherwise."""
    if environment.heaps_are_told():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no library without a name
        return
    mallopt(M_ARENA_MAX, 1)
