"""What is measured on: the machine's name, its cores, and who else keeps them busy."""

import os
import platform
import re
from pathlib import Path

import psutil

RESULTS = Path(__file__).resolve().parent / "results"


def cpu_name() -> str:
    """The CPU's name as the system tells it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def cores() -> int:
    """Physical cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def machine() -> str:
    return f"{cpu_name()}, {cores()} cores"


def results_file(kind: str = "") -> Path:
    """Where results of this machine are kept: `<kind>-<CPU>-<cores>-cores.csv`."""
    slug = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-")
    return RESULTS / f"{kind}-{slug}.csv".lstrip("-")


def busy_seconds() -> float:
    """Processor seconds that the machine has spent on something; also those that the host took from a guest."""
    times = psutil.cpu_times()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user and nice already
    return sum(value for name, value in times._asdict().items() if name not in idle)
