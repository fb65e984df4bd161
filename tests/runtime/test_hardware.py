"""Which cores a team runs on, told from trees of /sys that describe boards."""

import os
import sys
import threading
from pathlib import Path

import pytest
from fake_machine import cpus, v1_group, v2_group, write

from edgeq.errors import UsageError
from edgeq.runtime import hardware
from edgeq.runtime.team import Team, team_size

RK3588 = [530] * 4 + [1024] * 4
TWO_THREADS_EACH = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}


def used(cores: hardware.Cores) -> list[int]:
    return sorted(cpu for core in cores.used for cpu in core.cpus)


def test_all_alike(tmp_path: Path) -> None:
    cores = hardware.cores(cpus(tmp_path, [1024] * 4), {0, 1, 2, 3})
    assert (cores.threads, used(cores), cores.slow, cores.reasons) == (4, [0, 1, 2, 3], (), ())
    assert cores.restriction(4) is None


@pytest.mark.parametrize("clock", [False, True])
def test_fast_cores_only_on_big_little(tmp_path: Path, clock: bool) -> None:
    capacities = [1_800_000] * 4 + [2_400_000] * 4 if clock else RK3588
    cores = hardware.cores(cpus(tmp_path, capacities, clock=clock), set(range(8)))
    assert (cores.threads, used(cores)) == (4, [4, 5, 6, 7])
    assert [core.cpus for core in cores.slow] == [(0,), (1,), (2,), (3,)]
    assert "4 slow cores are left out" in " ".join(cores.reasons)
    assert cores.restriction(4) == cores.restriction(2) == {4, 5, 6, 7}
    assert cores.restriction(5) is None, "whoever asks for more threads than fast cores means the slow ones too"


def test_many_slow_cores_outweigh_few_fast_ones(tmp_path: Path) -> None:
    cores = hardware.cores(cpus(tmp_path, [1024] * 2 + [600] * 8), set(range(10)))
    assert cores.threads == 10
    assert cores.restriction(2) is None


def test_three_tiers(tmp_path: Path) -> None:
    """One prime core and three big ones work together; the four little ones do not."""
    cores = hardware.cores(cpus(tmp_path, [330] * 4 + [870] * 3 + [1024]), set(range(8)))
    assert used(cores) == [4, 5, 6, 7]


def test_clocks_of_favoured_cores_make_no_slow_ones(tmp_path: Path) -> None:
    assert (
        hardware.cores(cpus(tmp_path, [5_700_000, 5_700_000, 5_400_000, 5_400_000], clock=True), {0, 1, 2, 3}).threads
        == 4
    )


def test_equal_capacities_leave_it_to_the_clocks(tmp_path: Path) -> None:
    """Older kernels write 1024 for every core of a hybrid x86."""
    root = cpus(cpus(tmp_path, [1024] * 4), [5_000_000] * 3 + [3_800_000], clock=True)
    assert hardware.cores(root, {0, 1, 2, 3}).threads == 3


def test_one_thread_per_physical_core(tmp_path: Path) -> None:
    cores = hardware.cores(cpus(tmp_path, [1024] * 4, TWO_THREADS_EACH), {0, 1, 2, 3})
    assert (cores.threads, [core.cpus for core in cores.used]) == (2, [(0, 1), (2, 3)])
    assert "physical core" in cores.reasons[0]


def test_affinity(tmp_path: Path) -> None:
    cores = hardware.cores(cpus(tmp_path, RK3588), {0, 1, 5, 6})
    assert (cores.threads, used(cores)) == (2, [5, 6])
    assert "4 of 8 CPUs" in cores.reasons[0]
    only_slow = hardware.cores(tmp_path, {0, 1, 2})
    assert (only_slow.threads, only_slow.slow) == (3, ())


@pytest.mark.parametrize(("quota", "threads"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
def test_quota(tmp_path: Path, quota: str, threads: int) -> None:
    group = v2_group(cpus(tmp_path, [1024] * 4)) / "a"
    write(group, {"cpu.max": quota, "b/cpu.max": "max 100000"})
    cores = hardware.cores(tmp_path, {0, 1, 2, 3})
    assert cores.threads == threads, "a group above binds too"
    assert (cores.quota is None) == (threads == 4)


def test_quota_of_version_1(tmp_path: Path) -> None:
    group = v1_group(cpus(tmp_path, [1024] * 4)) / "cpu,cpuacct/a/b"
    write(group, {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000})
    assert hardware.cores(tmp_path, {0, 1, 2, 3}).threads == 4
    write(group, {"cpu.cfs_quota_us": 300000})
    assert hardware.cores(tmp_path, {0, 1, 2, 3}).quota == 3.0


def test_nothing_to_read(tmp_path: Path) -> None:
    cores = hardware.cores(tmp_path, {0, 1})
    assert (cores.threads, cores.quota) == (2, None)


def test_names(tmp_path: Path) -> None:
    assert hardware.cpu_name(tmp_path / "none")
    pi = {
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b",
        "proc/device-tree/model": "Pi 5\0",
    }
    assert hardware.cpu_name(write(tmp_path / "pi", pi)) == "Cortex-A76 on Pi 5"
    odd = {"proc/cpuinfo": "CPU implementer\t: 0x61\nCPU part\t: 0x022"}
    assert hardware.cpu_name(write(tmp_path / "odd", odd)) == "ARM part 0x022"
    x86 = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\n\nprocessor\t: 1\nmodel name\t: Other"}
    assert hardware.cpu_name(write(tmp_path / "x86", x86)) == "Some CPU"


def test_memory(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  400 kB\nHugePages_Total: 0"})
    assert hardware.memory(tmp_path) == hardware.Memory(1024000, 409600)
    here = hardware.memory(tmp_path / "none")
    assert 0 < here.available <= here.total, "psutil knows it elsewhere"


def test_teams_follow_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEQ_THREADS", raising=False)
    found = hardware.cores(cpus(tmp_path, RK3588), set(range(8)))
    monkeypatch.setattr(hardware, "cores", lambda: found)
    assert team_size() == 4
    assert team_size(8) == 8
    with pytest.raises(UsageError, match="0 threads cannot work"):
        team_size(0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="affinity is Linux's")
@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one CPU only")
@pytest.mark.parametrize("mixed", [False, True])
def test_workers_keep_to_the_fast_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    """The calling thread goes where it likes."""
    allowed = os.sched_getaffinity(0)
    fast = hardware.Core((min(allowed),), 1024)
    found = hardware.Cores((0,), (fast, fast), (hardware.Core((1,), 300),) if mixed else (), (fast, fast), None, 2, ())
    monkeypatch.setattr(hardware, "cores", lambda: found)
    set_to: list[tuple[int, frozenset[int]]] = []
    done = threading.Event()

    def record(thread: int, chosen: frozenset[int]) -> None:
        set_to.append((thread, chosen))
        done.set()

    monkeypatch.setattr(os, "sched_setaffinity", record)
    team = Team(2)
    team.start()
    assert done.wait(10 if mixed else 0.1) == mixed
    team.close()
    if mixed:
        assert set_to[0][0] != threading.get_native_id() and set_to[0][1] == {min(allowed)}
    assert os.sched_getaffinity(0) == allowed
