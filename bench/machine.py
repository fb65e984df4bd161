"""What is measured on: the machine's name, its cores, and who else keeps them busy."""

import re
from pathlib import Path

import psutil
from llvmlite import binding as llvm

from edgeq.runtime.hardware import cores as found_cores
from edgeq.runtime.hardware import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"


def cores() -> int:
    """Physical cores that a team runs on unless it is told otherwise."""
    return found_cores().threads


def machine() -> str:
    """The CPU's name, and LLVM's: a hypervisor may say no more than `AMD EPYC` of every generation."""
    name, generation = cpu_name(), llvm.get_host_cpu_name()
    known = generation in name.lower()
    return f"{name if known else f'{name} ({generation})'}, {cores()} cores"


def results_file(kind: str = "") -> Path:
    """Where results of this machine are kept: `<kind>-<CPU>-<cores>-cores.csv`."""
    slug = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-")
    return RESULTS / f"{kind}-{slug}.csv".lstrip("-")


def busy_seconds() -> float:
    """Processor seconds that the machine has spent on something; also those that the host took from a guest."""
    times = psutil.cpu_times()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user and nice already
    return sum(value for name, value in times._asdict().items() if name not in idle)
