"""Limits of control groups, told from trees of files, and one real group where tests may make one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_machine import v1_group, v2_group, write

from edgeq.runtime.fit import available_memory
from edgeq.system import cgroups, environment

MIB = 1 << 20


def memory_v2(limit: object, used: int, active: int = 0, inactive: int = 0, shmem: int = 0) -> dict[str, object]:
    stat = f"anon 1\nfile {active + inactive + shmem}\nshmem {shmem}\ninactive_file {inactive}\nactive_file {active}"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def test_the_file_cache_counts_as_free(tmp_path: Path) -> None:
    write(v2_group(tmp_path) / "a/b", memory_v2(512 * MIB, 400 * MIB, active=100 * MIB, inactive=200 * MIB))
    assert cgroups.memory_limit(tmp_path) == cgroups.MemoryLimit(512 * MIB, 412 * MIB)


def test_shared_memory_does_not(tmp_path: Path) -> None:
    write(v2_group(tmp_path) / "a/b", memory_v2(512 * MIB, 400 * MIB, shmem=300 * MIB))
    assert cgroups.memory_limit(tmp_path) == cgroups.MemoryLimit(512 * MIB, 112 * MIB)


def test_the_tightest_group_above_binds(tmp_path: Path) -> None:
    top = v2_group(tmp_path)
    write(top / "a/b", memory_v2("max", 10 * MIB))
    write(top / "a", memory_v2(300 * MIB, 290 * MIB))
    write(top, memory_v2(800 * MIB, 20 * MIB))
    assert cgroups.memory_limit(tmp_path) == cgroups.MemoryLimit(300 * MIB, 10 * MIB)


def test_more_than_the_limit_is_in_use(tmp_path: Path) -> None:
    write(v2_group(tmp_path) / "a/b", memory_v2(100 * MIB, 120 * MIB))
    assert cgroups.memory_limit(tmp_path) == cgroups.MemoryLimit(100 * MIB, 0)


@pytest.mark.parametrize("limit", ["max", 9223372036854771712])
def test_no_limit(tmp_path: Path, limit: object) -> None:
    write(v2_group(tmp_path) / "a/b", memory_v2(limit, MIB))
    assert cgroups.memory_limit(tmp_path) is None
    assert cgroups.memory_limit(tmp_path / "nothing") is None


def test_version_1(tmp_path: Path) -> None:
    group = v1_group(tmp_path) / "memory/a/b"
    stat = f"active_file 1\ninactive_file 1\ntotal_active_file {30 * MIB}\ntotal_inactive_file {20 * MIB}"
    files = {"memory.limit_in_bytes": 256 * MIB, "memory.usage_in_bytes": 100 * MIB, "memory.stat": stat}
    write(group, files)
    assert cgroups.memory_limit(tmp_path) == cgroups.MemoryLimit(256 * MIB, 206 * MIB)


@pytest.mark.parametrize(
    ("path", "mounted", "folder"),
    [
        ("/docker/1f", "/docker/1f", ""),  # a container that sees its own group only, without a namespace
        ("/docker/1f/x", "/docker/1f", "x"),
        ("/", "/", ""),  # a container with a namespace
        ("/../other", "/", ""),  # a process that was moved out of the namespace's group
    ],
)
def test_containers(tmp_path: Path, path: str, mounted: str, folder: str) -> None:
    top = v2_group(tmp_path, "/", "/")
    (top / folder).mkdir(exist_ok=True)
    mount = f"30 23 0:26 {mounted} /sys/fs/cgroup ro - cgroup2 cgroup rw"
    write(tmp_path, {"proc/self/cgroup": f"0::{path}", "proc/self/mountinfo": mount})
    write(top / folder, memory_v2(200 * MIB, 50 * MIB))
    limit = cgroups.memory_limit(tmp_path)
    assert limit is not None and limit.available == 150 * MIB


def test_available_memory_is_the_smaller_one(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": f"MemTotal: {1 << 20} kB\nMemAvailable: {300 << 10} kB"})
    assert available_memory(tmp_path) == 300 * MIB
    group = v2_group(tmp_path) / "a/b"
    write(group, memory_v2(200 * MIB, 50 * MIB))
    assert available_memory(tmp_path) == 150 * MIB
    write(group, memory_v2(2000 * MIB, 50 * MIB))
    assert available_memory(tmp_path) == 300 * MIB


# ---- a real group ----

Limited = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def limited() -> Iterator[Limited]:
    """`limited(bytes, *arguments)` runs the command line in a memory control group of so many bytes."""
    above = environment.test_cgroup()
    if above is None:
        pytest.skip("no memory control group to make groups in: name one in EDGEQ_TEST_CGROUP")
    group = above / f"edgeq-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"{group}: cannot be made: {error.strerror}")
    limit = group / ("memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes")

    def run(nbytes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
        limit.write_text(str(nbytes))
        enter = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
        command = ["sh", "-c", enter, "sh", sys.executable, "-m", "edgeq", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    try:
        if not limit.exists():
            pytest.skip(f"{above}: is no memory control group")
        yield run
    finally:
        group.rmdir()


def test_a_real_group(limited: Limited, converted: Callable[..., Path], tiny_model: Path) -> None:
    """A context of 200,000 has 290 MiB of keys and values."""
    model = converted(tiny_model, "Q4_K_M")
    fits = limited(256 * MIB, "run", model, "Once", "--raw", "-n", 3, "--temp", 0)
    assert fits.returncode == 0, fits.stderr
    refused = limited(256 * MIB, "run", model, "Once", "--raw", "-n", 3, "-c", 200000)
    assert refused.returncode == 2
    assert "MiB are available: a context of at most " in refused.stderr
    largest = int(refused.stderr.split("at most ")[1].split()[0])
    assert 512 < largest < 200000
    told_to = limited(256 * MIB, "run", model, "Once", "--raw", "-n", 3, "--temp", 0, "-c", 200000, "--force")
    assert (told_to.returncode, told_to.stdout) == (0, fits.stdout)
    assert limited(256 * MIB, "doctor", model, "--no-speed", "-c", 200000).returncode == 2
    assert "a control group grants 256.00 MiB" in limited(256 * MIB, "doctor", "--no-speed").stdout
