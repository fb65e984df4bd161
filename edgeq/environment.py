"""The one place that reads environment variables.

| variable          | meaning                                         | default                                     |
|-------------------|-------------------------------------------------|---------------------------------------------|
| `EDGEQ_ISA`       | body of the kernels: a name of `simd/isa.py`    | the best that this CPU has                  |
| `EDGEQ_THREADS`   | threads that run a model                        | the cores worth using (runtime/machine.py)  |
| `EDGEQ_CACHE`     | folder of compiled kernels, and of models       | `$XDG_CACHE_HOME/edgeq` or `~/.cache/edgeq` |
| `EDGEQ_KERNELS`   | the one folder to look for libraries of kernels | the package, then `data_folder()`           |
| `EDGEQ_TEST_DATA` | folder of checkpoints and texts that tests use  | beside the repository                       |
| `EDGEQ_TEST_CGROUP` | memory control group in which tests may make groups | none: those tests skip                |
"""

import os
from pathlib import Path


def isa() -> str | None:
    """The forced instruction set body, or None for the best one this CPU has."""
    return os.environ.get("EDGEQ_ISA") or None


def threads() -> int | None:
    """The number of threads asked for, or None. A value that is no positive integer is a UsageError."""
    text = os.environ.get("EDGEQ_THREADS")
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        from edgeq.errors import UsageError

        raise UsageError(f"EDGEQ_THREADS is {text!r}: give a whole number of at least 1")
    return int(text)


def cache_folder() -> Path:
    """Where compiled kernels are kept, and models that were made to be run."""
    forced = os.environ.get("EDGEQ_CACHE")
    if forced:
        return Path(forced)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq"


def data_folder() -> Path:
    """The user's folder of libraries of kernels: `$XDG_DATA_HOME/edgeq/kernels` or `~/.local/share/edgeq/kernels`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "edgeq" / "kernels"


def of_child(**variables: str) -> dict[str, str]:
    """The environment of a process to be started: this one's, with some variables set."""
    return {**os.environ, **variables}


def kernels_folder() -> Path | None:
    """The folder of libraries of kernels that is named by the environment, if any."""
    text = os.environ.get("EDGEQ_KERNELS")
    return Path(text) if text else None


def test_data() -> Path | None:
    """The folder of test data named by the environment, if any."""
    text = os.environ.get("EDGEQ_TEST_DATA")
    return Path(text) if text else None


def test_cgroup() -> Path | None:
    """The folder of the memory control group in which tests may make groups of their own, if any is named."""
    text = os.environ.get("EDGEQ_TEST_CGROUP")
    return Path(text) if text else None


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
