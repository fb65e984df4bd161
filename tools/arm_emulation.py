"""Run edgeq's AArch64 kernels without an ARM machine: kernels compiled here, run in an emulated Python.

    python tools/arm_emulation.py [--cache FOLDER] [--cpu cortex-a72 cortex-a76 max] [--minutes N]

Fetches once, into the cache folder and nowhere else (some 500 MB, no root): qemu's user emulator, Python 3.11 for arm64
from Debian, and PyPI's aarch64 wheels. qemu enforces each CPU's instruction set: `sdot` on a Cortex-A72 is an illegal
instruction. Every kernel that edgeq has is compiled for each CPU, and then

- every result of emulated_results.py must have the same bits as on this machine, in a process that has no Numba: the
  matrix kernels of every type, logits of models of many architectures, with several numbers of threads and splits of
  the prompt, and greedy texts;
- the tests of the kernels must pass, in a process that may compile nothing;
- a bundle for a Raspberry Pi 5 must run with the packages that it brings and no others, and say what is said here.

Exit code 1 where a result differs or a test fails, 77 where the parts cannot be fetched. With --minutes it ends by
then, and says what was left out.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77
LIBRARY_BYTES = 3 << 20  # what a library of all kernels may take
MOST_SECONDS = 1200  # of one emulated process, a long time even where others keep the machine busy

# qemu's CPU -> the library of kernels for it, and the body that must be chosen there
CPUS = {
    "cortex-a72": ("cortex-a72", "neon"),
    "cortex-a76": ("cortex-a76", "neon_dotprod"),
    "max": ("neoverse-n2", "neon_i8mm"),
}
BOARDS = {"cortex-a76": "pi5"}  # whose bundle is tried
KERNEL_TESTS = (
    *("kernels/test_matmul.py", "kernels/test_experts.py", "kernels/test_encode.py", "kernels/test_attention.py"),
    *("kernels/test_elementwise.py", "kernels/test_architecture_kernels.py", "gguf/test_rearrange.py"),
)


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

_APT = """Dir::State "{folder}/state";
Dir::State::status "{folder}/none";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "";
Acquire::Retries "1";
Acquire::http::Timeout "20";
"""
_DEBIAN = {
    "amd64": ("qemu-user-static",),
    "arm64": (
        *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
        *("libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libsqlite3-0"),
    ),
}
# What a board needs, and what tests need beside it.
_WHEELS = {
    "site": ("numpy", "psutil", "tokenizers", "sentencepiece", "jinja2", "markupsafe"),
    "site-tests": ("numba", "llvmlite", "ml_dtypes", "pytest", "pluggy", "iniconfig", "packaging", "pygments"),
}


def _run(command: list[str], **options: object) -> str:
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


def fetch(cache: Path) -> None:
    """Debian's packages into `cache/root`, wheels into `cache/site` and `cache/site-tests`; once."""
    done = cache / "fetched"
    wanted = {folder: [f"{name}=={version(name)}" for name in names] for folder, names in _WHEELS.items()}
    stamp = f"{wanted} {_DEBIAN}"
    if done.is_file() and done.read_text() == stamp:
        return
    for name in ("root", *wanted):
        shutil.rmtree(cache / name, ignore_errors=True)
    for architecture, packages in _DEBIAN.items():
        _debian(cache / f"apt-{architecture}", architecture, packages, cache / "root")
    for emulator in (cache / "root/usr/bin").glob("qemu-*"):
        if emulator.name != "qemu-aarch64-static":
            emulator.unlink()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("_2_28", "_2_17", "2014")]
    for folder, wheels in wanted.items():
        target = ["--only-binary=:all:", *platforms, "--python-version=3.11", f"--target={cache / folder}"]
        _run([*pip, "--timeout=20", "--retries=1", *target, *wheels])
    done.write_text(stamp)


def _debian(folder: Path, architecture: str, packages: tuple[str, ...], root: Path) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "none").touch()
    (folder / "apt.conf").write_text(_APT.format(folder=folder, architecture=architecture))
    (folder / "sources.list").write_text("deb http://deb.debian.org/debian bookworm main\n")
    apt = ["apt-get", "-c", str(folder / "apt.conf"), "-qq"]
    _run([*apt, "update"])
    _run([*apt, "download", *packages], cwd=folder)
    root.mkdir(exist_ok=True)
    for package in sorted(folder.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(folder)


# ---- running ----


def emulated(
    cache: Path, cpu: str, arguments: list[str], paths: tuple[Path, ...], seconds: float, kernels: Path | None = None
) -> tuple[int, str]:
    """Run the emulated Python with the packages of some folders. Exit code, and what it said on both streams.

    subprocess.TimeoutExpired where it takes longer than `seconds`.
    """
    root = cache / "root"
    environment = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
        "EDGEQ_CACHE": str(cache / "compiled"),
        "EDGEQ_KERNELS": str(kernels or cache / f"kernels-{cpu}"),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": "generic",  # the emulator shows this machine's /proc/cpuinfo
        "NUMBA_CPU_FEATURES": "",
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
    }
    command = [str(root / "usr/bin/qemu-aarch64-static"), "-L", str(root), "-cpu", cpu]
    command += [str(root / "usr/bin/python3.11"), *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
    return done.returncode, done.stdout.strip()


def build(cache: Path, cpu: str) -> str:
    """A library of all kernels for an emulated CPU, in the folder where its edgeq looks; what to say of it."""
    from edgeq.errors import KernelError
    from edgeq.kernels import build, catalog, image
    from edgeq.kernels.sources import sources

    target, folder = catalog.cpu(CPUS[cpu][0]), cache / f"kernels-{cpu}"
    path, started = folder / f"{target.name}.eqk", time.perf_counter()
    try:
        header = image.read_header(path)
        fresh = header.sources == sources() and header.kernels.keys() >= set(catalog.names(target.isa))
    except KernelError:
        fresh = False
    if not fresh:
        build.build(target, folder)
    size = path.stat().st_size
    if size > LIBRARY_BYTES:
        raise SystemExit(f"arm_emulation: the library for {target.name} takes {size} bytes, more than {LIBRARY_BYTES}")
    took = "kept" if fresh else f"{time.perf_counter() - started:.0f} s"
    return f"{len(catalog.names(target.isa))} kernels for {target.name}: {size / 1024:.0f} KiB, {took}"


def run_bundle(cache: Path, cpu: str, clock: Clock) -> tuple[int, str]:
    """`edgeq bundle` for a board; then, in the emulator and with nothing but what is in the bundle, doctor and run.

    Unavailable where its wheels cannot be had.
    """
    folder, packages = cache / "run" / f"bundle-{cpu}", cache / "run" / f"packages-{cpu}"
    model = cache / "run" / "tiny_model-Q4_K_M.eqf"
    said_here = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEQ_KERNELS": str(cache / f"kernels-{cpu}")}
    edgeq = [sys.executable, "-m", "edgeq"]
    bundle = ["bundle", str(model), "--for", BOARDS[cpu], "--python", "3.11", "-o", str(folder)]
    made = subprocess.run([*edgeq, *bundle], env=said_here, capture_output=True, text=True)
    if made.returncode == 2 and "cannot be had" in made.stderr:
        raise Unavailable(made.stderr.strip())
    if made.returncode != 0:
        return 1, made.stderr
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--only-binary=:all:"]
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("_2_28", "_2_17", "2014")]
    install += [*platforms, "--python-version=3.11", f"--find-links={folder / 'wheels'}", f"--target={packages}"]
    installed = subprocess.run(
        [*install, "-r", str(folder / "requirements.txt")], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        return 1, installed.stderr
    text = ["run", str(folder / model.name), "Once upon a time", "-n", "40", "--temp", "0"]
    expected = subprocess.run([*edgeq, *text], env={**said_here, "EDGEQ_KERNELS": ""}, capture_output=True, text=True)
    for arguments in (["doctor", str(folder / model.name)], text):
        command = ["-m", "edgeq", *arguments]
        code, said = emulated(cache, cpu, command, (packages,), clock.left, folder / "kernels")
        if code != 0:
            return code, said
    if said != expected.stdout.strip() or "numba" in (folder / "requirements.txt").read_text():
        return 1, f"the board says {said!r}, this machine {expected.stdout!r}"
    count = len((folder / "requirements.txt").read_text().split())
    return 0, f"{BOARDS[cpu]}'s bundle of {count} packages runs: {said[:48]!r}"


def check(cache: Path, cpu: str, kind: str, clock: Clock) -> bool | None:
    """One emulated process; prints what came out of it. None where there is no time for it, or a part cannot be had."""
    started = time.perf_counter()
    script, paths = str(ROOT / "tools" / "emulated_results.py"), (ROOT, ROOT / "tests", cache / "site")
    try:
        if clock.is_over:
            return None
        if kind == "bundle":
            code, said = run_bundle(cache, cpu, clock)
        elif kind == "bits":
            code, said = emulated(cache, cpu, [script, "bits", str(cache / "run"), CPUS[cpu][1]], paths, clock.left)
        else:
            tests = [str(ROOT / "tests" / name) for name in KERNEL_TESTS]
            code, said = emulated(cache, cpu, [script, "tests", *tests], (*paths, cache / "site-tests"), clock.left)
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


def run(cache: Path, cpus: list[str], clock: Clock) -> int:
    """Compute everything here, then on every emulated CPU. Returns the exit code."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import emulated_results

    from edgeq import environment

    folder = cache / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    absent = emulated_results.convert_models(ROOT, environment.test_data() or ROOT.parent / "shared" / "data", folder)
    if absent:
        print(f"not here, so left out: {', '.join(absent)}")
    np.savez(folder / "expected.npz", **emulated_results.results(folder))
    jobs, left_out = [], []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for cpu in cpus:  # each is checked while the next one's kernels are compiled: if time ends, some are done
            if clock.is_over:
                left_out.append(cpu)
                continue
            print(build(cache, cpu), flush=True)
            kinds = ("bits", "tests", "bundle") if cpu in BOARDS else ("bits", "tests")
            jobs += [(cpu, kind, pool.submit(check, cache, cpu, kind, clock)) for kind in kinds]
    passed = [job.result() for _, _, job in jobs]
    left_out += [f"{cpu}'s {kind}" for cpu, kind, job in jobs if job.result() is None]
    if left_out:
        why = "for want of time" if clock.is_over else "see above"
        print(f"arm_emulation: left out, {why}: {', '.join(left_out)}")
    failed = passed.count(False)
    print(f"arm_emulation: {f'{failed} FAILED, see above' if failed else f'{passed.count(True)} checks passed'}")
    return 1 if failed else 0


def take(lock: IO[str], cache: Path, clock: Clock) -> None:
    """Wait for another run in this cache to end. Unavailable where there is no time for that."""
    while not clock.is_over:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(1)
    raise Unavailable(f"{cache} is in use by another run")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run edgeq's AArch64 kernels in an emulator, against this machine's bits."
    )
    parser.add_argument(
        "--cache", type=Path, help="where the parts are kept  [default: arm_emulation in edgeq's cache]"
    )
    parser.add_argument("--cpu", nargs="*", default=list(CPUS), choices=list(CPUS))
    parser.add_argument("--minutes", type=float, help="end by then  [default: no limit]")
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    sys.path.insert(0, str(ROOT))
    from edgeq import environment

    cache = (arguments.cache or environment.cache_folder() / "arm_emulation").resolve()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:  # one run at a time: they share libraries and files
            take(lock, cache, clock)
            fetch(cache)
            return run(cache, arguments.cpu, clock)
    except Unavailable as error:
        print(f"arm_emulation: skipped: {error}")
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
