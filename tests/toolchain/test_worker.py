"""Compiling kernels in other processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from kernel_calls import address, call

from edgeq.errors import KernelError
from edgeq.ops import copy_rows
from edgeq.simd import isa
from edgeq.system import cgroups
from edgeq.toolchain import cache, library, worker

SMALL = ["execute:publish", "copy_rows", "execute:lead"]


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert [
        child for child in psutil.Process().children() if "edgeq.toolchain.worker" in " ".join(child.cmdline())
    ] == []


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is there, neither on disk nor in this process."""
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path / "none"))
    monkeypatch.setattr(library, "_loaded", {})


def copy(kernel: library.Kernel) -> None:
    """Run `copy_rows` and look at what it did."""
    source, target = np.arange(64, dtype=np.float32).reshape(2, 32), np.zeros((2, 32), np.float32)
    which, count = np.array([1, 0]), np.array([2], np.int64)
    call(kernel, copy_rows.Args(address(source), 128, 32, address(target), 128, address(which), address(count)))
    assert np.array_equal(source[which], target)


def jobs(names: list[str]) -> list[worker.Job]:
    return [worker.Job(name, isa.choose().name, f"test_{name.replace(':', '_')}") for name in names]


def test_every_job_gives_its_own_object():
    objects = dict(worker.compile_all(jobs(SMALL), 2))
    assert set(objects) == set(jobs(SMALL))
    assert all(job.symbol.encode() in code for job, code in objects.items())


def test_a_kernel_that_cannot_be_compiled_is_one_line():
    with pytest.raises(KernelError, match=r"kernel norm cannot be compiled: StopIteration"):
        list(worker.compile_all([worker.Job("norm", "no_such_body", "norm")], 1))
    with pytest.raises(
        KernelError, match=r"kernel execute:nonsense cannot be compiled: KeyError: 'nonsense'"
    ) as caught:
        list(worker.compile_all(jobs(["execute:nonsense"]), 1))
    assert "\n" not in str(caught.value)


def test_a_process_that_is_killed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    start = worker._start

    def start_and_kill(log):
        process = start(log)
        process.kill()
        return process

    monkeypatch.setattr(worker, "_start", start_and_kill)
    with pytest.raises(KernelError, match=r"kernel \S+ cannot be compiled: its process was ended by signal 9"):
        list(worker.compile_all(jobs(SMALL), 1))


def test_giving_up_half_way_ends_the_processes():
    results = worker.compile_all(jobs(["matmul:Q4_K", "copy_rows"]), 2)
    began = time.monotonic()
    next(results)
    results.close()
    assert time.monotonic() - began < 60


# Processes whose job takes longer than anyone waits; each that has begun leaves a file named by its number.
PARENT = """
import sys
import edgeq.toolchain.worker as worker
slow = f'''
import os, time
def compile_job(job):
    open(os.path.join({sys.argv[1]!r}, str(os.getpid())), "w").close()
    time.sleep(1000)
import edgeq.toolchain.worker
edgeq.toolchain.worker.compile_job = compile_job
'''
worker._START = worker._START.replace("import edgeq.toolchain.worker\\n", slow)
list(worker.compile_all([worker.Job("norm", "avx2", name) for name in "ab"], 2))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_processes_end_with_the_one_that_started_them(how: signal.Signals, tmp_path: Path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    while len(begun := list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.01)
    children = [psutil.Process(int(path.name)) for path in begun]
    parent.send_signal(how)
    assert parent.wait() == -how
    try:
        assert psutil.wait_procs(children, timeout=60)[1] == []
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def test_prepare_compiles_keeps_and_tells(empty_cache: None):
    class Heard(list):
        def __init__(self):
            self.steps = []

        def __call__(self, line):
            self.append(line)

        def progress(self, done, total):
            self.steps.append((done, total))

    heard = Heard()
    kernels = library.prepare(SMALL, heard)
    assert len(heard) == 1 and heard[0].startswith("compiling 3 kernels for ")
    assert heard.steps == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]
    assert library.missing(SMALL) == []
    copy(kernels["copy_rows"])


def test_where_no_process_can_be_started(empty_cache: None, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert set(library.prepare(SMALL[:2])) == set(SMALL[:2])
    assert library.missing(SMALL[:2]) == []


@pytest.mark.parametrize(
    ("cores", "megabytes", "limit", "count", "expected"),
    [
        (4, 8000, None, 12, 4),
        (4, 8000, None, 2, 2),
        (4, 700, None, 12, 2),
        (4, 90, None, 12, 1),
        (4, 8000, 1000, 12, 3),
        (4, 700, 5000, 12, 2),
        (4, 8000, 100, 12, 1),
    ],
)
def test_how_many_processes(
    monkeypatch: pytest.MonkeyPatch, cores: int, megabytes: int, limit: int | None, count: int, expected: int
):
    """As many as cores, jobs and memory allow, the system's and that of the control group."""
    group = None if limit is None else cgroups.MemoryLimit(8000 << 20, limit << 20)
    monkeypatch.setattr(cgroups, "memory_limit", lambda: group)
    monkeypatch.setattr(worker, "_available", lambda: megabytes << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert worker.processes(count) == expected


def test_memory_is_what_the_system_says():
    memory = psutil.virtual_memory()
    assert 0 < worker._available() < memory.total


def test_a_cache_that_cannot_be_written(empty_cache: None, tmp_path: Path):
    (tmp_path / "cache").touch()
    lines: list[str] = []
    assert set(library.prepare(SMALL, lines.append)) == set(SMALL)
    assert len(lines) == 2 and lines[1].startswith(f"{tmp_path / 'cache'}: kernels cannot be kept there")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "another kernel"])
def test_a_damaged_file_is_compiled_anew(empty_cache: None, monkeypatch: pytest.MonkeyPatch, damage: str):
    row = library.chosen_isa()
    library.prepare(["copy_rows", "execute:lead"])
    path = cache.path("copy_rows", row)
    content = path.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    other = cache.path("execute:lead", row).read_bytes()
    path.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b"", "another kernel": other}[damage])
    monkeypatch.setattr(library, "_loaded", {})
    assert library.missing(["copy_rows", "execute:lead"]) == ["copy_rows"]
    copy(library.kernel("copy_rows"))
    assert library.missing(["copy_rows"]) == []
    assert path.read_bytes() != flipped
