"""Threads of a server share a heap."""

import os
import subprocess
import sys

import pytest

from edgeq.serve import heap

CODE = """
import ctypes, sys, threading
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
if sys.argv[1] == "shared":
    from edgeq.serve import heap
    heap.share()
together = threading.Barrier(4)
def take():
    libc.malloc(5000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def heaps(how, **told):
    environment = {**os.environ, **told}
    told = subprocess.run(
        [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True, env=environment
    )
    return told.stdout.count("<heap nr=")


def test_threads_share_the_heap_of_the_process():
    import ctypes

    if not hasattr(ctypes.CDLL(None), "malloc_info"):
        pytest.skip("malloc is not glibc's: nothing to be shared")
    assert heaps("apart") > 1 and heaps("shared") == 1
    assert heaps("shared", MALLOC_ARENA_MAX="3") == 3, "somebody has said so"


@pytest.mark.parametrize("fault", [TypeError, OSError, AttributeError])
def test_another_c_library_is_left_alone(monkeypatch, fault):
    def none(name):
        raise fault

    monkeypatch.setattr(heap.ctypes, "CDLL", none)
    heap.share()
