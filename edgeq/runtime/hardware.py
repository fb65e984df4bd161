"""What this machine lets a process use: cores, fast and slow, and their quota. Linux is read from /proc and /sys.

Every function takes the `root` of those trees, so that tests can describe boards that are not there. Systems without
them are asked for little: physical cores, and on a Mac its fast ones.
"""

import mmap
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeq.system.cgroups import cpu_quota

ROOT = Path("/")
FAST = 0.75  # a core is fast if it has this share of the fastest one's capacity (big.LITTLE has a half or less)
FAST_CLOCK = 0.9  # where only clocks are known, which differ less than what the cores do per cycle
# Work is split evenly, so a team is as fast as its slowest core times its size. Slow cores join only where that wins
# by a clear margin (two fast cores beside eight slow ones): barriers and memory make each core worth less than that.
MARGIN = 1.5


@dataclass(frozen=True)
class Core:
    """A physical core: its logical CPUs that this process may use, and its capacity relative to other cores."""

    cpus: tuple[int, ...]
    capacity: int
    clock_only: bool = False


@dataclass(frozen=True)
class Cores:
    """The cores that this process may use (all `online` CPUs, or fewer), and how many threads are worth running.

    fast, slow: by capacity; `slow` is empty where all are alike
    used:       what a team should run on: the fast ones, or all
    quota:      CPUs' worth of time that control groups grant, or None
    threads:    the team's size
    reasons:    lines that explain the size
    """

    online: tuple[int, ...]
    fast: tuple[Core, ...]
    slow: tuple[Core, ...]
    used: tuple[Core, ...]
    quota: float | None
    threads: int
    reasons: tuple[str, ...]

    def restriction(self, threads: int) -> frozenset[int] | None:
        """The CPUs that a team's workers must keep to: the fast ones if there are slow ones that the team leaves out.

        None where the system's scheduler should choose: no workers, all cores alike, or more threads than fast cores.
        """
        if not self.slow or self.used != self.fast or not 1 < threads <= len(self.fast):
            return None
        return frozenset(cpu for core in self.fast for cpu in core.cpus)


def cores(root: Path = ROOT, allowed: set[int] | None = None) -> Cores:
    """Look at the machine. `allowed` are the CPUs that this process may run on, by default its affinity."""
    everything = _online(root)
    if allowed is None:
        allowed = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(everything)
    online = tuple(sorted(set(everything) | allowed))
    found = _physical(root, sorted(allowed))
    best = max(core.capacity for core in found)
    share = FAST_CLOCK if any(core.clock_only for core in found) else FAST
    fast = tuple(core for core in found if core.capacity >= share * best)
    slow = tuple(core for core in found if core.capacity < share * best)
    used, reasons = fast, []
    logical = sum(len(core.cpus) for core in found)
    if len(allowed) < len(online):
        reasons.append(f"this process may use {len(allowed)} of {len(online)} CPUs (affinity or cpuset)")
    if logical > len(found):
        reasons.append("one thread per physical core: two that share one share its vector units")
    if slow:
        together = len(found) * min(core.capacity for core in found)
        if together > MARGIN * len(fast) * min(core.capacity for core in fast):
            used = found
            reasons.append(f"the {len(slow)} slow cores outweigh the {len(fast)} fast ones, so all are used")
        else:
            reasons.append(f"the {len(slow)} slow cores are left out: every step would wait for them")
    quota, threads = cpu_quota(root), len(used)
    if not (root / "sys/devices/system/cpu").is_dir() and (physical := _cores_elsewhere()) < threads:
        threads = max(1, physical)
        reasons.append(f"{threads} of {len(used)} CPUs are physical cores, or the fast ones of these")
    if quota is not None and quota < threads:
        threads = max(1, int(quota))
        reasons.append(f"a control group grants {quota:g} CPUs' time: more threads would be paused within steps")
    return Cores(online, fast, slow, used, quota, threads, tuple(reasons))


def cpu_name(root: Path = ROOT) -> str:
    """The CPU's name, and the board's where the firmware tells it (device trees of ARM boards)."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    board = _text(root / "proc/device-tree/model").rstrip("\0\n")
    part = (fields.get("cpu implementer", ""), fields.get("cpu part", ""))
    name = fields.get("model name") or _ARM_PARTS.get(part) or (f"ARM part {part[1]}" if part[1] else "")
    name = name or _sysctl("machdep.cpu.brand_string")
    return " on ".join(text for text in (name, board) if text) or platform.processor() or platform.machine()


# Main ID register: implementer 0x41 is ARM; parts as in the cores' technical reference manuals.
_ARM_PARTS = {
    ("0x41", part): name
    for part, name in {
        "0xd03": "Cortex-A53",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse N1",
        "0xd40": "Neoverse V1",
        "0xd41": "Cortex-A78",
        "0xd49": "Neoverse N2",
        "0xd4f": "Neoverse V2",
    }.items()
}


@dataclass(frozen=True)
class Memory:
    """Bytes of main memory, and what of it the system can hand out without swapping, caches dropped."""

    total: int
    available: int


def memory(root: Path = ROOT) -> Memory:
    """The machine's memory; control groups may grant less (see cgroups.py)."""
    fields = {}
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[key] = int(value.split()[0]) * 1024
    if "MemAvailable" in fields:
        return Memory(fields["MemTotal"], fields["MemAvailable"])
    import psutil  # systems other than Linux

    found = psutil.virtual_memory()
    return Memory(int(found.total), int(found.available))


def page_size() -> int:
    """Bytes of a page of memory: 4, 16 or 64 KiB."""
    return mmap.PAGESIZE


# ---- systems other than Linux ----


def _cores_elsewhere() -> int:
    """Physical cores; of a Mac's, which are of two kinds, the fast ones. As many as there are CPUs if nobody knows."""
    import psutil

    fast = _sysctl("hw.perflevel0.physicalcpu")
    return int(fast) if fast.isdigit() else psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _sysctl(name: str) -> str:
    """What a Mac says of itself; empty elsewhere, or where it does not know."""
    if sys.platform != "darwin":
        return ""
    import subprocess

    try:
        return subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


# ---- /sys/devices/system/cpu ----


def _online(root: Path) -> tuple[int, ...]:
    listed = _cpu_list(_text(root / "sys/devices/system/cpu/online"))
    return tuple(listed) or tuple(range(os.cpu_count() or 1))


def _physical(root: Path, cpus: list[int]) -> tuple[Core, ...]:
    """The physical cores of `cpus`, the ones of most capacity first."""
    siblings: dict[frozenset[int], list[int]] = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        listed = _cpu_list(_text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list"))
        siblings.setdefault(frozenset(listed) or frozenset({cpu}), []).append(cpu)
    rated, clock_only = _capacities(root, [group[0] for group in siblings.values()])
    found = [Core(tuple(group), rated[group[0]], clock_only) for group in siblings.values()]
    return tuple(sorted(found, key=lambda core: (-core.capacity, core.cpus)))


def _capacities(root: Path, cpus: list[int]) -> tuple[dict[int, int], bool]:
    """What each CPU can do: the kernel's capacity (1024 is the best), else its highest clock in kHz; 1 if unknown.

    Kernels give every core of a hybrid x86 the same capacity unless they schedule by it, so equal ones do not count.
    """
    folder = root / "sys/devices/system/cpu"
    for name, clock in (("cpu_capacity", False), ("cpufreq/cpuinfo_max_freq", True)):
        values = {cpu: _text(folder / f"cpu{cpu}" / name).strip() for cpu in cpus}
        if all(value.isdigit() and int(value) > 0 for value in values.values()):
            numbers = {cpu: int(value) for cpu, value in values.items()}
            if len(set(numbers.values())) > 1:
                return numbers, clock
    return dict.fromkeys(cpus, 1), False


def _cpu_list(text: str) -> list[int]:
    """The kernel's list format: "0-3,8" is 0, 1, 2, 3, 8."""
    result: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            result += range(int(first), int(last or first) + 1)
    return result


def _text(path: Path) -> str:
    """A file's text; empty where there is none, as on another system."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
