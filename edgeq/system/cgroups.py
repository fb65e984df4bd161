"""Limits of Linux control groups, v1 and v2: CPU time and memory. Where there are none, there is no limit.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. A group is also bound by every
group above it, as far up as this process can see.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
NO_LIMIT = 1 << 60  # v1 writes "none" as the largest multiple of a page


@dataclass(frozen=True)
class Group:
    """A control group's folder, and whether its files are those of version 2."""

    folder: Path
    unified: bool


def groups(controller: str, root: Path = ROOT) -> Iterator[Group]:
    """The groups that bind this process, its own first, then those above: of v2, and of v1's `controller`."""
    own = _own(root)
    for mount, mounted, kind, options in _mounts(root):
        unified = kind == "cgroup2"
        if not unified and (kind != "cgroup" or controller not in options):
            continue
        path = own.get("" if unified else controller)
        if path is None:
            continue
        top = root / mount.lstrip("/")
        # A container may see a part of the hierarchy only: what is mounted is then the group `mounted`.
        inside = path == mounted or path.startswith(mounted.rstrip("/") + "/")
        folder = top / (path[len(mounted) :] if inside else "").strip("/")
        while not folder.is_dir() and folder != top:
            folder = folder.parent
        yield Group(folder, unified)
        while folder != top:
            folder = folder.parent
            yield Group(folder, unified)


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time per period that the tightest group grants; None without a limit."""
    quotas = []
    for group in groups("cpu", root):
        if group.unified:
            words = _text(group.folder / "cpu.max").split()
        else:
            words = [_text(group.folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


@dataclass(frozen=True)
class MemoryLimit:
    """A group's limit, and what of it is still to be had: bytes that neither others nor this process hold.

    File pages in the cache count as to be had, since the kernel drops them first.
    """

    limit: int
    available: int


def memory_limit(root: Path = ROOT) -> MemoryLimit | None:
    """The group that leaves the least memory; None without a limit."""
    found = []
    for group in groups("memory", root):
        names = (
            ("memory.max", "memory.current") if group.unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit, used = (_text(group.folder / name) for name in names)
        if not (limit.isdigit() and used.isdigit()) or int(limit) >= NO_LIMIT:
            continue
        held = max(0, int(used) - _reclaimable(group))
        found.append(MemoryLimit(int(limit), max(0, int(limit) - held)))
    return min(found, key=lambda here: here.available, default=None)


def _reclaimable(group: Group) -> int:
    """Bytes of file cache charged to a group and those below it; v1 has the sums with `total_` before them."""
    prefix = "" if group.unified else "total_"
    wanted = {f"{prefix}active_file", f"{prefix}inactive_file"}
    lines = (line.split() for line in _text(group.folder / "memory.stat").splitlines())
    return sum(int(words[1]) for words in lines if len(words) == 2 and words[0] in wanted)


def _own(root: Path) -> dict[str, str]:
    """The paths of this process's groups by v1 controller; "" is v2's."""
    result: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            result[controller] = path
    return result


def _mounts(root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Mount point, the part of the file system that is mounted, its kind, its own options (see proc(5), mountinfo)."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) >= 5 and len(right) >= 3:
            yield left[4], left[3], right[0], right[2].split(",")


def _text(path: Path) -> str:
    """A file's text without the newline at its end; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
