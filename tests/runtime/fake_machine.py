"""Trees of /proc and /sys that describe machines which are not there."""

from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, object]) -> Path:
    """Files below `root`; the result is `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def cpus(root: Path, capacities: list[int], siblings: Mapping[int, str] | None = None, clock: bool = False) -> Path:
    """CPUs with these capacities, or with these highest clocks in kHz."""
    name = "cpufreq/cpuinfo_max_freq" if clock else "cpu_capacity"
    files: dict[str, object] = {"online": f"0-{len(capacities) - 1}"}
    for cpu, capacity in enumerate(capacities):
        files[f"cpu{cpu}/{name}"] = capacity
        files[f"cpu{cpu}/topology/thread_siblings_list"] = (siblings or {}).get(cpu, cpu)
    return write(root / "sys/devices/system/cpu", files) and root


def v2_group(root: Path, path: str = "/a/b", mounted: str = "/") -> Path:
    """This process in the group `path` of version 2; the result is the folder of the hierarchy."""
    mount = f"30 23 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
    write(root, {"proc/self/cgroup": f"0::{path}", "proc/self/mountinfo": mount})
    top = root / "sys/fs/cgroup"
    (top / path.removeprefix(mounted).strip("/")).mkdir(parents=True, exist_ok=True)
    return top


def v1_group(root: Path, path: str = "/a/b", mounted: str = "/") -> Path:
    """The same with version 1: the result has one folder per controller."""
    controllers = {"memory": "memory", "cpu,cpuacct": "cpu,cpuacct"}
    own = "\n".join(f"{i}:{names}:{path}" for i, names in enumerate(controllers, 4))
    mounts = "\n".join(
        f"3{i} 23 0:2{i} {mounted} /sys/fs/cgroup/{names} rw - cgroup cgroup rw,{names}"
        for i, names in enumerate(controllers)
    )
    write(root, {"proc/self/cgroup": own, "proc/self/mountinfo": mounts})
    top = root / "sys/fs/cgroup"
    for names in controllers:
        (top / names / path.removeprefix(mounted).strip("/")).mkdir(parents=True, exist_ok=True)
    return top
