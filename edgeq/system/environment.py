"""The one place that reads environment variables.

| variable          | meaning                                         | default                                     |
|-------------------|-------------------------------------------------|---------------------------------------------|
| `EDGEQ_ISA`       | body of the kernels: a name of `simd/isa.py`    | the best that this CPU has                  |
| `EDGEQ_THREADS`   | threads that run a model                        | the cores worth using (runtime/hardware.py)  |
| `EDGEQ_CACHE`     | folder of compiled kernels, and of models       | `cache_folder()`                            |
| `EDGEQ_KERNELS`   | the one folder to look for libraries of kernels | the package, then `data_folder()`           |
| `EDGEQ_DEBUG`     | show tracebacks of unexpected errors            | no                                          |
| `EDGEQ_HISTORY`   | file of what was typed in chats; `-` is none    | `history_file()`                            |
| `EDGEQ_API_KEY`   | a key that clients of the server need           | none                                        |
| `NOTIFY_SOCKET`, `LISTEN_PID`, `LISTEN_FDS` | what systemd gives to a service | none |
| `MALLOC_ARENA_MAX`, `GLIBC_TUNABLES` | what glibc's malloc is told by somebody | nothing |
| `EDGEQ_TEST_DATA` | folder of checkpoints and texts that tests use  | beside the repository                       |
| `EDGEQ_TEST_CGROUP` | memory control group in which tests may make groups | none: those tests skip                |
"""

import os
import sys
from pathlib import Path


def isa() -> str | None:
    """The forced instruction set body, or None for the best one this CPU has."""
    return os.environ.get("EDGEQ_ISA") or None


def threads() -> int | None:
    """The number of threads asked for, or None. A value that is no positive integer is a UsageError."""
    text = os.environ.get("EDGEQ_THREADS")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < 1:
        from edgeq.errors import UsageError

        raise UsageError(f"EDGEQ_THREADS is {text!r}: give a whole number of at least 1")
    return int(text)


def heaps_are_told() -> bool:
    """Whether somebody has told glibc's malloc how many heaps it may have."""
    return "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")


def cache_folder() -> Path:
    """Where compiled kernels are kept, and models that were made to be run: `~/.cache/edgeq`, or where else the system
    keeps what can be made again. UsageError where neither EDGEQ_CACHE nor a home tells."""
    forced = os.environ.get("EDGEQ_CACHE")
    folder = Path(forced) if forced else _own("XDG_CACHE_HOME", ".cache", "Library/Caches", "cache")
    if folder is None:
        from edgeq.errors import UsageError

        raise UsageError("this user has no home folder to keep kernels and models in: set EDGEQ_CACHE to a folder")
    return folder


def data_folder() -> Path:
    """The user's folder of libraries of kernels: `~/.local/share/edgeq/kernels`, or where else the system keeps data;
    one that is not there for a user without a home."""
    return (
        _own("XDG_DATA_HOME", ".local/share", "Library/Application Support", "data") or Path(os.devnull)
    ) / "kernels"


def _own(variable: str, linux: str, macos: str, windows: str) -> Path | None:
    """edgeq's folder of a kind: by the variable of the XDG specification on any system, else by the system's custom."""
    if base := os.environ.get(variable):
        return Path(base) / "edgeq"
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry among the users: often so in containers
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "edgeq" / windows
    return home / (macos if sys.platform == "darwin" else linux) / "edgeq"


def of_child(**variables: str) -> dict[str, str]:
    """The environment of a process to be started: this one's, with some variables set."""
    return {**os.environ, **variables}


def kernels_folder() -> Path | None:
    """The folder of libraries of kernels that is named by the environment, if any."""
    text = os.environ.get("EDGEQ_KERNELS")
    return Path(text) if text else None


def silence_downloads() -> None:
    """Ask `huggingface_hub` for no bars, unless the user has said what it shall do."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def debug() -> bool:
    """Whether tracebacks of unexpected errors are wanted."""
    return os.environ.get("EDGEQ_DEBUG", "") not in ("", "0")


def history_file() -> Path | None:
    """The file of what was typed in chats; None where there is to be none, or no home for it."""
    text = os.environ.get("EDGEQ_HISTORY")
    if text:
        return Path(text) if text != "-" else None
    folder = _own("XDG_STATE_HOME", ".local/state", "Library/Application Support", "state")
    return folder / "chat-history" if folder else None


def api_key() -> str | None:
    """The key that clients of the server need, if any."""
    return os.environ.get("EDGEQ_API_KEY", "").strip() or None


def dumb_terminal() -> bool:
    """Whether the terminal says that it knows no escape codes."""
    return os.environ.get("TERM") in ("dumb", "unknown")


def colour() -> bool:
    """Whether text may be coloured or dimmed: NO_COLOR, set to anything, forbids it."""
    return not os.environ.get("NO_COLOR") and not dumb_terminal()


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


def notify_socket() -> str | None:
    """Where systemd waits to hear that a service is ready, or None."""
    return os.environ.get("NOTIFY_SOCKET") or None


def passed_sockets() -> int:
    """How many sockets systemd has opened for this process."""
    count = os.environ.get("LISTEN_FDS", "")
    return int(count) if count.isdecimal() and os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
