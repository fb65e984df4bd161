"""What is measured on: the machine's name, its cores, and who else keeps them busy."""

import re
from pathlib import Path

import psutil

from edgeq.runtime.machine import cores as found_cores
from edgeq.runtime.machine import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"


def cores() -> int:
    """Physical cores that a team runs on unless it is told otherwise."""
    return found_cores().threads


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
