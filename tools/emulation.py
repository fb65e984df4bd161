"""What the tools share that run edgeq's kernels on emulated CPUs: fetching, building, comparing, reporting."""

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77
LIBRARY_BYTES = 3 << 20  # what a library of all kernels may take
MOST_SECONDS = 1200  # of one emulated process, a long time even where others keep the machine busy

RESULTS = ROOT / "tools" / "emulated_results.py"
KERNEL_TESTS = (
    *("kernels/test_matmul.py", "kernels/test_experts.py", "kernels/test_encode.py", "kernels/test_attention.py"),
    *("kernels/test_rows.py", "kernels/test_turns.py"),
    *("kernels/test_elementwise.py", "kernels/test_architecture_kernels.py", "gguf/test_rearranger.py"),
)
GUARDED = ["-p", "guard_memory", str(ROOT / "tests" / "kernels" / "guard_cases.py")]


class Unavailable(Exception):
    """Something cannot be fetched here."""


class Clock:
    """The time that there is: nothing begins, nor goes on, after it."""

    def __init__(self, minutes: float | None):
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds."""
        return MOST_SECONDS if self.end is None else min(MOST_SECONDS, self.end - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.end is not None and self.left <= 0


# ---- fetching ----


def output(command: list[str], **options: object) -> str:
    """What a command says. Unavailable, in one line, where it fails or takes more than 5 minutes."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, **options)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{' '.join(command[:3])}: no end after 5 minutes") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or [f"exit code {error.returncode}"]
        raise Unavailable(f"{' '.join(command[:3])}: {lines[-1]}") from error
    return done.stdout


def fetch_wheels(wheels: Iterable[str], folder: Path, *options: str) -> None:
    """Put packages, and not what they ask for, into a folder. Unavailable where they cannot be had."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    output([*pip, "--timeout=20", "--retries=1", "--only-binary=:all:", *options, f"--target={folder}", *wheels])


# ---- what is run, and compared with ----


def build(cpu: str, folder: Path) -> str:
    """A library of all kernels for a CPU (a name of toolchain/cpus.py), kept in a folder; what to say of it."""
    from edgeq.errors import KernelError
    from edgeq.ops import catalog
    from edgeq.toolchain import build, cpus, image
    from edgeq.toolchain.sources import sources

    target = cpus.cpu(cpu)
    names = catalog.names(target.isa)
    path, started = folder / f"{target.name}.eqk", time.perf_counter()
    try:
        header = image.read_header(path)
        fresh = header.sources == sources(names, target.isa) and list(header.kernels) == names
    except KernelError:
        fresh = False
    if not fresh:
        build.build(target, folder, names)
    size = path.stat().st_size
    if size > LIBRARY_BYTES:
        raise SystemExit(f"{tool()}: the library for {target.name} takes {size} bytes, more than {LIBRARY_BYTES}")
    took = "kept" if fresh else f"{time.perf_counter() - started:.0f} s"
    return f"{len(names)} kernels for {target.name}: {size / 1024:.0f} KiB, {took}"


def compute_expected(folder: Path) -> None:
    """Make the models anew, and `expected.npz`: what this machine computes."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import emulated_results

    from edgeq.system import environment

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    absent = emulated_results.convert_models(ROOT, environment.test_data() or ROOT.parent / "shared" / "data", folder)
    if absent:
        print(f"not here, so left out: {', '.join(absent)}")
    np.savez(folder / "expected.npz", **emulated_results.results(folder, saves=True))


def tests() -> list[str]:
    """The tests of kernels, as emulated_results.py takes them."""
    return [str(ROOT / "tests" / name) for name in KERNEL_TESTS]


# ---- running ----

Check = Callable[[str, str], tuple[int, str]]  # CPU and kind -> exit code, and what was said


def check(cpu: str, kind: str, run: Check, clock: Clock) -> bool | None:
    """One emulated process; prints what came out of it. None where there is no time for it, or a part cannot be had."""
    started = time.perf_counter()
    try:
        if clock.is_over:
            return None
        code, said = run(cpu, kind)
    except Unavailable as error:
        print(f"{cpu}, {kind}: cannot be had: {error}", flush=True)
        return None
    except subprocess.TimeoutExpired:
        if clock.is_over:
            return None
        code, said = 1, f"no end after {MOST_SECONDS} s"
    lines = said.splitlines() or [f"exit code {code}"]
    shown = lines[-1] if code == 0 else "FAILED\n" + "\n".join(lines[-60:])
    print(f"{cpu}, {kind}, {time.perf_counter() - started:.0f} s: {shown}", flush=True)
    return code == 0


def check_all(
    cpus: Sequence[str],
    prepare: Callable[[str], str],
    kinds: Callable[[str], Sequence[str]],
    run: Check,
    clock: Clock,
) -> int:
    """Prepare every CPU and run its checks. Returns the exit code."""
    jobs: list[tuple[str, str, Future[bool | None]]] = []
    left_out = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for cpu in cpus:  # each is checked while the next one's kernels are compiled: if time ends, some are done
            if clock.is_over:
                left_out.append(cpu)
                continue
            print(prepare(cpu), flush=True)
            jobs += [(cpu, kind, pool.submit(check, cpu, kind, run, clock)) for kind in kinds(cpu)]
    passed = [job.result() for _, _, job in jobs]
    left_out += [f"{cpu}'s {kind}" for cpu, kind, job in jobs if job.result() is None]
    if left_out:
        why = "for want of time" if clock.is_over else "see above"
        print(f"{tool()}: left out, {why}: {', '.join(left_out)}")
    failed = passed.count(False)
    print(f"{tool()}: {f'{failed} FAILED, see above' if failed else f'{passed.count(True)} checks passed'}")
    return 1 if failed else 0


# ---- the command ----


def tool() -> str:
    """The name of the command."""
    return Path(sys.argv[0]).stem


def take(lock: IO[str], cache: Path, clock: Clock) -> None:
    """Wait for another run in this cache to end. Unavailable where there is no time for that."""
    while not clock.is_over:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(1)
    raise Unavailable(f"{cache} is in use by another run")


def main(description: str, cpus: Iterable[str], run: Callable[[Path, list[str], Clock], int]) -> int:
    """Take the arguments, then `run(cache, cpus, clock)`. Returns the exit code."""
    parser = argparse.ArgumentParser(description=description)
    where = f"where the parts are kept  [default: {tool()} in edgeq's cache]"
    parser.add_argument("--cache", type=Path, help=where)
    parser.add_argument("--cpu", nargs="*", default=list(cpus), choices=list(cpus))
    parser.add_argument("--minutes", type=float, help="end by then  [default: no limit]")
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    sys.path.insert(0, str(ROOT))
    from edgeq.system import environment

    cache = (arguments.cache or environment.cache_folder() / tool()).resolve()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:  # one run at a time: they share libraries and files
            take(lock, cache, clock)
            return run(cache, arguments.cpu, clock)
    except Unavailable as error:
        print(f"{tool()}: skipped: {error}")
        return SKIPPED
